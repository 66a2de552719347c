"""A worker whose loop a test steps, and records for it."""

import dataclasses
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import redis
from sqlalchemy.orm import Session, sessionmaker

from subtext_sidecar.contract import streams
from tests.support.letters import letters_of
from tests.support.records import encode_header, header_for
from tests.support.waiting import wait_until
from workers.consumer import wiring
from workers.consumer.loop import WorkerLoop
from workers.settings import WorkerSettings

MODEL = "fake-model"
D_MODEL = 8
STREAM = streams.activations_stream(MODEL, 1)


def make_record(**changes: Any) -> tuple[bytes, bytes]:
    """Return header and vector of a valid record, with changed header fields."""
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
    return encode_header(header), vector.tobytes()


def environment(settings: WorkerSettings) -> dict[str, str]:
    """Return the environment of a worker process with these settings and a free port."""
    return {
        "SUBTEXT_DATABASE_URL": settings.database_url.get_secret_value(),
        "SUBTEXT_REDIS_URL": settings.redis_url.get_secret_value(),
        "SUBTEXT_DECODER_DIR": str(settings.decoder_dir),
        "SUBTEXT_CONCEPTS_FILE": str(settings.concepts_file),
        "SUBTEXT_HTTP_PORT": "0",
    }


@dataclasses.dataclass(slots=True)
class Bench:
    """One worker with its stores and clients."""

    parts: wiring.Parts
    loop: WorkerLoop
    client: redis.Redis
    sessions: sessionmaker[Session]
    stop: threading.Event

    def add(self, header: bytes, vector: bytes) -> None:
        self.client.xadd(
            self.parts.queue.stream, {streams.FIELD_HEADER: header, streams.FIELD_VECTOR: vector}
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
        return letters_of(self.client, self.parts.queue.stream)

    def metric(self, name: str, **labels: str) -> float:
        return self.parts.metrics.registry.get_sample_value(name, labels) or 0.0


def drain_together(benches: Sequence[Bench]) -> None:
    """Let the workers drain their stream at the same time, each in a thread of its own."""
    threads = [threading.Thread(target=bench.drain) for bench in benches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)


@contextmanager
def running(bench: Bench) -> Iterator[None]:
    """Run the loop in a thread for the length of the block."""
    thread = threading.Thread(target=bench.loop.run, daemon=True)
    thread.start()
    yield
    bench.stop.set()
    thread.join(20)
    assert not thread.is_alive()
