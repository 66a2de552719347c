from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from subtext_sidecar.anomaly.score import Detector
from tests.integration.sidecar.shipper.stage import MIB, Stage


@pytest.fixture
def start(tmp_path: Path, redis_url: str) -> Iterator[Callable[..., Stage]]:
    stages: list[Stage] = []

    def make(
        url: str = redis_url,
        buffer_bytes: int = MIB,
        stream_bytes: int = 64 * MIB,
        detector: Detector | None = None,
        policy_file: Path | None = None,
    ) -> Stage:
        address = f"ipc://{tmp_path}/s.sock"
        stages.append(
            Stage(
                address=address,
                url=url,
                buffer_bytes=buffer_bytes,
                stream_bytes=stream_bytes,
                detector=detector,
                policy_file=policy_file,
            )
        )
        return stages[-1]

    yield make
    for stage in stages:
        stage.close()


@pytest.fixture
def client(redis_url: str) -> Iterator[Any]:
    one = redis.Redis.from_url(redis_url)
    yield one
    one.close()
