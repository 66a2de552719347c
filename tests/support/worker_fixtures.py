"""Fixtures for a worker loop on real Postgres and Valkey with the in-memory decoder.

A conftest module uses them by importing them.
"""

import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from pydantic import SecretStr

from service.store.engine import session_factory
from service.store.vectors import sealing
from subtext_sidecar.anomaly.score import Reference
from tests.support.worker import Bench
from workers.consumer import wiring
from workers.consumer.loop import LoopSettings
from workers.judge.embedder import WordEmbedder
from workers.nla.decoder import Decoder
from workers.nla.fake import FakeDecoder
from workers.settings import WorkerSettings

CONCEPTS = """
version: 1
concepts:
  - name: bombs
    description: bombs
    severity: critical
    matchers: [{regex: bomb}]
"""


@pytest.fixture
def concepts_file(tmp_path: Path) -> Path:
    path = tmp_path / "concepts.yaml"
    path.write_text(CONCEPTS)
    return path


@pytest.fixture
def worker_settings(writer_url: str, redis_url: str, concepts_file: Path, tmp_path: Path) -> WorkerSettings:
    return WorkerSettings(
        database_url=SecretStr(writer_url),
        redis_url=SecretStr(redis_url),
        decoder_dir=tmp_path,
        concepts_file=concepts_file,
        http_port=0,
        batch_entries=4,
        reclaim_idle_seconds=1.0,
    )


@pytest.fixture
def kept_vectors(tmp_path: Path) -> Callable[[str], dict[str, Path]]:
    """Settings by which a worker keeps the default tenant's vectors of a model for seven days."""

    def write(model: str) -> dict[str, Path]:
        plan, key = tmp_path / "vectors.yaml", tmp_path / "vectors.key"
        plan.write_text(f"keep: [{{tenant: default, model: {model}, days: 7}}]")
        sealing.generate_file(key)
        return {"vectors_file": plan, "vectors_key_file": key}

    return write


@pytest.fixture
def make_bench(
    worker_settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Bench]]:
    impatient = partial(LoopSettings, block_ms=100, first_backoff_seconds=0.05)
    monkeypatch.setattr(wiring, "LoopSettings", impatient)
    made: list[Bench] = []

    def make(decoder: Decoder | None = None, anomaly: Reference | None = None, **changes: Any) -> Bench:
        stop = threading.Event()
        parts = wiring.build(worker_settings.model_copy(update=changes), stop, version="test")
        loop = parts.connect(decoder or FakeDecoder(), anomaly, embedder=WordEmbedder())
        assert loop is not None
        client = redis.Redis.from_url(parts.settings.redis_url.get_secret_value())
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
