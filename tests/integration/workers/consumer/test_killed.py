"""A worker killed with SIGKILL at each step of a batch: nothing is lost and nothing is there twice."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import redis
from sqlalchemy import func, select

from service.store.engine import create_engine, session_factory
from service.store.tables import CoverageMinute, Explanation, Sample
from subtext_sidecar.contract import record, streams
from subtext_sidecar.contract.counters import Stratum
from tests.support import ROOT
from tests.support.letters import letters_of
from tests.support.worker import STREAM, make_record
from workers.consumer.loop import Checkpoint

KILLS_AT_EACH_STEP = 4
SAMPLES_BEFORE_EACH_KILL = 5
STRATA = (Stratum.UNIFORM, Stratum.OPT_IN)


@contextlib.contextmanager
def runner(env: dict[str, str]) -> Iterator[Callable[[str], int]]:
    """Runs a worker of its own at every call, and returns its status."""
    command = [sys.executable, "-m", "tests.integration.workers.consumer.runner"]
    with subprocess.Popen(
        command, cwd=ROOT, env=os.environ | env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        to, back = process.stdin, process.stdout

        def run(mode: str) -> int:
            print(mode, file=to, flush=True)
            return int(back.readline())

        yield run


def test_twenty_kills_lose_nothing_and_double_nothing(
    database_url: str, redis_url: str, concepts_file: Path, tmp_path: Path
) -> None:
    client = redis.Redis.from_url(redis_url)
    env = {
        "SUBTEXT_DATABASE_URL": database_url,
        "SUBTEXT_REDIS_URL": redis_url,
        "SUBTEXT_DECODER_DIR": str(tmp_path),
        "SUBTEXT_CONCEPTS_FILE": str(concepts_file),
        "SUBTEXT_HTTP_PORT": "0",
        "SUBTEXT_BATCH_ENTRIES": "4",
        "SUBTEXT_RECLAIM_IDLE_SECONDS": "1",
    }
    shipped = set()
    kills = [where for where in get_args(Checkpoint) for _ in range(KILLS_AT_EACH_STEP)]

    with runner(env) as run:
        for number, where in enumerate(kills):
            for position in range(SAMPLES_BEFORE_EACH_KILL):
                header, vector = make_record(
                    request_id=f"request-{number}", position=position, stratum=STRATA[position % 2]
                )
                shipped.add(record.sample_id(record.decode(header, vector).header))
                _ship(client, header, vector)
            assert run(where) == -signal.SIGKILL
        assert run("drain") == 0

    stored, rows, dead = _outcome(database_url, client)
    assert len(kills) == 20
    assert len(shipped) == 100
    assert stored | dead == shipped
    assert stored & dead == set()
    assert rows == len(stored)
    for stratum, samples in (STRATA[0], 60), (STRATA[1], 40):
        counts = _counted(database_url, stratum)
        assert counts.pop("rows_consumed") == samples
        assert sum(counts.values()) == samples


def _ship(client: redis.Redis, header: bytes, vector: bytes) -> None:
    client.xadd(STREAM, {streams.FIELD_HEADER: header, streams.FIELD_VECTOR: vector})


def _counted(database_url: str, stratum: str) -> dict[str, int]:
    """What was counted of one stratum, without the deliveries that came to nothing new."""
    engine = create_engine(database_url)
    table = CoverageMinute
    query = (
        select(table.counter, func.sum(table.count))
        .where(table.stratum == stratum, table.counter != "rows_redelivered")
        .group_by(table.counter)
    )
    with session_factory(engine)() as session:
        counted = {counter: int(count) for counter, count in session.execute(query)}
    engine.dispose()
    return counted


def _outcome(database_url: str, client: redis.Redis) -> tuple[set[Any], int, set[Any]]:
    engine = create_engine(database_url)
    with session_factory(engine)() as session:
        stored = set(session.execute(select(Sample.id)).scalars())
        rows = session.execute(select(func.count()).select_from(Explanation)).scalar_one()
    engine.dispose()
    dead = {
        record.sample_id(record.decode(fields[streams.FIELD_HEADER], fields[streams.FIELD_VECTOR]).header)
        for fields in letters_of(client, STREAM)
    }
    client.close()
    return stored, rows, dead
