"""A worker loop on real Postgres and Valkey around the in-memory decoder."""

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from numpy.typing import NDArray
from pydantic import SecretStr
from sqlalchemy.orm import Session, sessionmaker

from service.store.engine import session_factory
from subtext_sidecar.contract import record, streams
from tests.support.records import header_for
from tests.support.waiting import wait_until
from workers.consumer import wiring
from workers.consumer.loop import WorkerLoop
from workers.judge.embedder import WordEmbedder
from workers.nla.decoder import Decoder
from workers.nla.fake import FakeDecoder
from workers.settings import WorkerSettings

MODEL = "fake-model"
D_MODEL = 8
CONCEPTS = """
version: 1
concepts:
  - name: bombs
    description: bombs
    severity: critical
    matchers: [{regex: bomb}]
"""


def make_record(**changes: Any) -> tuple[bytes, bytes]:
    """Header and vector of a valid record, with some header fields changed."""
    position = int(changes.get("position", 0))
    vector = np.full(D_MODEL, position + 1, "<f4")
    vector[0] = -1.0
    fields: dict[str, Any] = {
        "model": MODEL,
        "layer": 1,
        "position": position,
        "token_id": 7,
        "norm": float(np.linalg.norm(vector)),
        "probability": 0.5,
        "captured_at": time.time(),
    }
    header = header_for(vector.tobytes(), **(fields | changes))
    return record.encode_header(header), vector.tobytes()


@dataclasses.dataclass(slots=True)
class Bench:
    """One worker with everything around it."""

    parts: wiring.Parts
    loop: WorkerLoop
    client: redis.Redis
    sessions: sessionmaker[Session]
    stop: threading.Event

    def add(self, header: bytes, vector: bytes) -> None:
        self.client.xadd(
            streams.ACTIVATIONS_STREAM, {streams.FIELD_HEADER: header, streams.FIELD_VECTOR: vector}
        )

    def add_samples(self, count: int, **changes: Any) -> None:
        for position in range(count):
            self.add(*make_record(position=position, **changes))

    def drain(self) -> None:
        wait_until(
            "the stream drains",
            lambda: not self.parts.queue.backlog().entries,
            30,
            meanwhile=self.loop.step,
        )

    def dead_letters(self) -> list[dict[bytes, bytes]]:
        entries: Any = self.client.xrange(streams.DEAD_LETTER_STREAM)
        return [fields for _, fields in entries]

    def metric(self, name: str, **labels: str) -> float:
        return self.parts.metrics.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
def concepts_file(tmp_path: Path) -> Path:
    path = tmp_path / "concepts.yaml"
    path.write_text(CONCEPTS)
    return path


@pytest.fixture
def worker_settings(
    database_url: str, redis_url: str, concepts_file: Path, tmp_path: Path
) -> WorkerSettings:
    return WorkerSettings(
        database_url=SecretStr(database_url),
        redis_url=SecretStr(redis_url),
        decoder_dir=tmp_path,
        concepts_file=concepts_file,
        http_port=0,
        batch_entries=4,
        reclaim_idle_seconds=1.0,
    )


@pytest.fixture
def make_bench(worker_settings: WorkerSettings) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(decoder: Decoder | None = None, anomaly: Mapping[str, NDArray[Any]] | None = None) -> Bench:
        stop = threading.Event()
        parts = wiring.build(worker_settings, stop, version="test")
        loop = parts.connect(decoder or FakeDecoder(), anomaly, embedder=WordEmbedder())
        assert loop is not None
        loop._settings = dataclasses.replace(loop._settings, block_ms=100, first_backoff_seconds=0.05)
        client = redis.Redis.from_url(worker_settings.redis_url.get_secret_value())
        bench = Bench(parts, loop, client, session_factory(parts.database), stop)
        made.append(bench)
        return bench

    yield make
    for bench in made:
        bench.stop.set()
        bench.client.close()
        bench.parts.close()


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    return make_bench()
