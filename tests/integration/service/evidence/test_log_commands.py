"""`subtext log` writes a log that `subtext verify` finds whole, and names the row that was changed."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from service.sequencer import command
from service.store.engine import create_engine, session_factory
from service.store.identity import tenant_id
from service.store.tenants.register import use_tenant
from service.store.write.concepts import NewConcept, register_concepts
from service.store.write.decoders import NewDecoder, register_decoder
from service.verifying import run as verify
from tests.support.waiting import wait_until

LOG = [sys.executable, "-c", "import sys; from service.commands import log; sys.exit(log(sys.argv[1:]))"]


def keygen(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Path, Path]:
    private, public = folder / "key", folder / "key.pub"
    assert command.run(["keygen", str(private), "--name", "subtext.example"]) == 0
    public.write_text(capsys.readouterr().out)
    return private, public


def test_a_key_is_for_its_owner_and_is_never_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    private, public = keygen(tmp_path, capsys)
    written = private.read_text()

    assert private.stat().st_mode & 0o777 == 0o600
    assert public.read_text().startswith("subtext.example+")
    assert command.run(["keygen", str(private)]) == 2
    assert private.read_text() == written


def test_settings_that_cannot_be_are_named(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    database_url: str,
) -> None:
    private, _ = keygen(tmp_path, capsys)
    monkeypatch.setenv("SUBTEXT_DATABASE_URL", database_url)
    monkeypatch.setenv("SUBTEXT_LOG_KEY_FILE", str(private))
    monkeypatch.setenv("SUBTEXT_CHECKPOINT_FOLDER", str(tmp_path / "none"))
    assert command.run([]) == 2
    assert "SUBTEXT_CHECKPOINT_FOLDER" in capsys.readouterr().err

    monkeypatch.setenv("SUBTEXT_CHECKPOINT_FOLDER", str(tmp_path))
    private.chmod(0o644)
    assert command.run([]) == 2
    assert "chmod 600" in capsys.readouterr().err


def test_the_process_writes_a_log_that_verifies_and_a_changed_row_is_named(  # noqa: PLR0917  # fixtures
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    database_url: str,
    sequencer_url: str,
    reader_url: str,
) -> None:
    private, public = keygen(tmp_path, capsys)
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    engine = create_engine(database_url)
    with session_factory(engine).begin() as session:
        decoder = NewDecoder(
            model="m", d_model=8, name="m-l1", digest="d", layer=1, fve_baseline=0.5, shuffled_fve_p95=0.1,
            calibration_n=9, card={},
        )  # fmt: skip
        register_decoder(session, decoder)
        # A definition that he alone uses, to which the default tenant's log commits.
        use_tenant(session, "acme")
        model, _ = register_decoder(session, replace(decoder, tenant="acme"))
        register_concepts(session, model, [NewConcept(name="c", version=1, digest="e", definition={})])
    engine.dispose()
    environment = os.environ | {
        "SUBTEXT_DATABASE_URL": sequencer_url,
        "SUBTEXT_LOG_KEY_FILE": str(private),
        "SUBTEXT_CHECKPOINT_FOLDER": str(checkpoints),
        "SUBTEXT_CHECKPOINT_EVERY_SECONDS": "0.2",
        "SUBTEXT_HTTP_PORT": "0",
    }
    process = subprocess.Popen(LOG, env=environment)
    try:
        with psycopg.connect(database_url, autocommit=True) as owner:
            wait_until(
                "the first checkpoints",
                lambda: owner.execute("SELECT count(*) FROM log_checkpoints").fetchone() == (2,),
                120.0,
            )
    finally:
        process.terminate()
        assert process.wait(60) == 0
    monkeypatch.setenv("SUBTEXT_DATABASE_URL", reader_url)
    arguments = ["--checkpoints", str(checkpoints), "--public-key", str(public)]

    assert verify(arguments) == 0
    told = map(json.loads, capsys.readouterr().out.splitlines())
    names = {str(tenant_id(name)): name for name in ("default", "acme")}
    assert {
        names[one["tenant"]]: (one["findings"], one["rows_verified"], one["checkpoints"]) for one in told
    } == {"default": (0, 2, 1), "acme": (0, 1, 1)}

    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute("UPDATE decoders SET fve_baseline = 0.4")
    assert verify(arguments) == 1
    assert "row_changed  decoder " in capsys.readouterr().out
