"""`subtext keeper` makes what was asked for, also when the process that began it was killed."""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest

from service.keeper import command
from service.sequencer.sequencer import Sequencer
from tests.integration.service.exports.desk import Desk
from tests.support.services import free_port
from tests.support.waiting import wait_until

KEEPER = [sys.executable, "-c", "import sys; from service.commands import keeper; sys.exit(keeper([]))"]


@contextmanager
def running(environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as written, subprocess.Popen(KEEPER, env=environment, stderr=written) as process:
        try:
            yield process
        finally:
            process.kill()


def jobs(url: str) -> list[tuple[str, str]]:
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT task_name, status::text FROM subtext_jobs.procrastinate_jobs"
            " WHERE task_name = 'make_export' ORDER BY id"
        )
        return [(str(name), str(status)) for name, status in found]


def age_workers(url: str) -> None:
    """Let an hour pass since any process told of itself."""
    with psycopg.connect(url) as connection:
        connection.execute(
            "UPDATE subtext_jobs.procrastinate_workers SET last_heartbeat = now() - interval '1 hour'"
        )


def test_a_job_whose_process_was_killed_is_taken_up_by_the_next(
    desk: Desk, database_url: str, sequencer: Sequencer, tmp_path: Path
) -> None:
    port = free_port()
    environment = {
        **os.environ,
        "SUBTEXT_DATABASE_URL": database_url,
        "SUBTEXT_EXPORT_FOLDER": str(desk.maker.folder),
        "SUBTEXT_HTTP_PORT": str(port),
    }
    export, log = desk.create(), tmp_path / "keeper.log"

    def is_made() -> bool:
        sequencer.sequence()
        sequencer.sign()
        return bool(desk.told(export)["state"] == "ready")

    def is_begun() -> bool:
        sequencer.sequence()
        return is_sealed(database_url, export)

    # Nothing is signed, so the first keeper waits for the seal's entry to be.
    with running(environment, log) as first:
        wait_until(log.read_text, is_begun, 120)
        first.kill()
        first.wait()
    assert jobs(database_url) == [("make_export", "doing")]
    age_workers(database_url)
    with running(environment, log) as second:
        wait_until(log.read_text, is_made, 180)
        shown = httpx.get(f"http://127.0.0.1:{port}/metrics").text
        second.terminate()
        assert second.wait(60) == 0

    assert desk.check(export).findings == []
    assert jobs(database_url) == []  # done ones are deleted
    # With it what else the first was about by the clock, if it was.
    [taken_up] = [
        line for line in shown.splitlines() if line.startswith("subtext_keeper_jobs_taken_up_total ")
    ]
    assert float(taken_up.split()[1]) >= 1
    assert 'subtext_keeper_runs_total{outcome="failed",task="expire_exports"} 0.0' in shown


def is_sealed(url: str, export: uuid.UUID) -> bool:
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT count(*) FROM access_log WHERE operation = 'make_export' AND %s = ANY (subject_ids)",
            [export],
        )
        return found.fetchone() == (1,)


def test_settings_that_cannot_be_are_named(
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SUBTEXT_DATABASE_URL", database_url)
    monkeypatch.setenv("SUBTEXT_EXPORT_FOLDER", str(tmp_path / "none"))

    assert command.run([]) == 2

    assert "SUBTEXT_EXPORT_FOLDER" in capsys.readouterr().err
