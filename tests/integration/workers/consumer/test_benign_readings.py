"""What is stored of benign requests becomes the file that concepts are calibrated on."""

import uuid
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from service.store.access.operator import os_user
from service.store.access.tables import AccessEntry
from service.store.engine import create_engine, session_factory
from tests.support.worker import MODEL, Bench, make_record
from workers.calibrate.concepts import load_readings
from workers.calibrate.readings import readings
from workers.nla.fake import FakeDecoder

CAPTURE, FOUND, ASKED = "5eed" * 8, "f00d" * 8, "a5ed" * 8
SPAN = ("--after", "2027-01-15T00:00:00Z", "--before", "2027-01-16T00:00:00+00:00")
NOON = 1_800_014_400.0


@pytest.fixture
def ask(tmp_path: Path, reader_url: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("SUBTEXT_DATABASE_URL", reader_url)
    why = ("--purpose", "quality_review", "--note", "T-7")
    return ["--model", MODEL, "--layer", "1", "--out", str(tmp_path / "readings.jsonl"), *SPAN, *why]


def entries(url: str) -> list[AccessEntry]:
    """Return the access log, as the owner: a worker's login has nothing of it."""
    database = create_engine(url)
    try:
        with session_factory(database)() as session:
            return list(session.scalars(select(AccessEntry).order_by(AccessEntry.seq)))
    finally:
        database.dispose()


def test_readings_are_written_as_the_flag_rule_looks_at_them(
    bench: Bench, ask: list[str], tmp_path: Path, database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    screened = {"baseline_probability": 0.0, "reason": "screen_anomaly"}
    for position in (4, 2):
        bench.add(*make_record(position=position, capture_id=CAPTURE, captured_at=NOON))
        bench.drain()
    for position in range(3):
        changes = screened if position == 1 else {}
        bench.add(*make_record(position=position, capture_id=FOUND, captured_at=NOON, **changes))
        bench.drain()
    bench.add(*make_record(capture_id=ASKED, stratum="opt_in", captured_at=NOON))
    bench.add(*make_record(position=9, capture_id=CAPTURE, captured_at=NOON + 86_400))
    bench.drain()

    assert readings(ask) == 0

    found = load_readings(tmp_path / "readings.jsonl")
    assert [(one.request, one.position) for one in found] == [(CAPTURE, 4), (CAPTURE, 2), (FOUND, 0)]
    assert all(one.text and one.captured_at is not None for one in found)
    said = capsys.readouterr().err
    assert "3 readings of 2 requests" in said
    assert f"--decoder-digest {FakeDecoder().identity.digest}" in said
    [entry] = entries(database_url)
    assert (entry.action, entry.operation, entry.purpose) == (
        "read_text",
        "calibrate readings",
        "quality_review",
    )
    assert (entry.subjects_total, entry.captures_total, entry.purpose_note) == (3, 2, "T-7")
    assert (entry.os_user, set(entry.capture_ids)) == (os_user(), {uuid.UUID(CAPTURE), uuid.UUID(FOUND)})


def test_readings_of_one_tenant_are_written_with_the_login_of_a_reader(
    bench: Bench, ask: list[str], tmp_path: Path, database_url: str
) -> None:
    for tenant, capture in (("default", CAPTURE), ("acme", FOUND)):
        bench.add(*make_record(capture_id=capture, tenant=tenant, captured_at=NOON))
    bench.drain()

    for asked, capture in ((ask, CAPTURE), ([*ask, "--tenant", "acme"], FOUND)):
        assert readings(asked) == 0
        [found] = load_readings(tmp_path / "readings.jsonl")
        assert found.request == capture
    assert len(entries(database_url)) == 2


def test_a_login_that_cannot_enter_it_writes_no_text(
    bench: Bench,
    ask: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bench.add(*make_record(capture_id=CAPTURE, captured_at=NOON))
    bench.drain()
    monkeypatch.setenv("SUBTEXT_DATABASE_URL", bench.parts.settings.database_url.get_secret_value())

    assert readings(ask) == 2

    assert "the access log" in capsys.readouterr().err
    assert list(tmp_path.glob("*readings*")) == []


def test_a_write_that_breaks_off_leaves_no_text(
    bench: Bench, ask: list[str], tmp_path: Path, database_url: str
) -> None:
    bench.add(*make_record(capture_id=CAPTURE, captured_at=NOON))
    bench.drain()
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute("ALTER TABLE access_log ADD CONSTRAINT refused CHECK (action <> 'read_text')")

    with pytest.raises(IntegrityError):
        readings(ask)

    assert list(tmp_path.glob("*readings*")) == []


@pytest.mark.usefixtures("bench")
def test_what_cannot_be_written_is_refused_with_the_field(
    ask: list[str],
    tmp_path: Path,
    database_url: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert readings(ask) == 2
    assert "after, before" in capsys.readouterr().err
    assert readings([*ask, "--decoder-digest", "another"]) == 2
    assert "decoder-digest" in capsys.readouterr().err
    assert list(tmp_path.glob("*readings*")) == []
    assert entries(database_url) == []
    with pytest.raises(SystemExit):
        readings(ask[: ask.index("--purpose")])
    assert "--purpose" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        readings([*ask, "--after", "2027-01-15T00:00:00"])
    assert "time zone" in capsys.readouterr().err
