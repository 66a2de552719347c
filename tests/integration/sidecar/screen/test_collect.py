"""Collecting benign activations beside the workers, from a real stream."""

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from subtext_sidecar.commands import screen
from tests.support.records import STREAM, frames, vector_bytes
from tests.support.services import free_port, redis_url_of


def arguments(redis_url: str, output: Path, *more: str) -> list[str]:
    wanted = ["--redis-url", redis_url, "--model", "smollm2", "--layer", "20", "--output", str(output)]
    return ["collect", *wanted, *more]


def append(client: Any, number: int, **changes: Any) -> None:
    # Two beams of each request.
    name = f"r{number // 2}"
    header, vector = frames(seed=number, request_id=name, capture_id=f"{number:032x}", **changes)
    client.xadd(STREAM, {"h": header, "a": vector})


def test_baseline_rows_of_the_model_and_layer_are_saved_with_their_requests(
    client: Any, redis_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    append(client, 0)  # before it began
    done = threading.Event()

    def traffic() -> None:
        number = 0
        while not done.wait(0.002):
            append(client, number)
            append(client, number + 1, model="other")
            append(client, number + 1, layer=3)
            append(client, number + 1, baseline_probability=0.0, reason="screen_anomaly")
            append(client, number + 1, stratum="canary", canary="0f" * 16)
            client.xadd(STREAM, {"h": b"garbage", "a": b""})
            number += 1

    thread = threading.Thread(target=traffic)
    thread.start()
    try:
        status = screen(arguments(redis_url, tmp_path / "benign", "--rows", "40"))
    finally:
        done.set()
        thread.join()

    assert status == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 40
    saved = load_file(tmp_path / "benign")
    assert saved["vectors"].shape == (40, 16)
    # Neighbours, each of which is one of the vectors that were sent for it.
    first = next(n for n in range(10_000) if np.array_equal(saved["vectors"][0], vector(n)))
    assert all(np.array_equal(saved["vectors"][row], vector(first + row)) for row in range(40))
    same = np.diff(saved["documents"]) == 0
    assert same.tolist() == [(first + row) % 2 == 0 for row in range(39)]
    assert len(set(saved["captures"].tolist())) == 40


def vector(seed: int) -> Any:
    return np.frombuffer(vector_bytes(seed=seed), "<f4")


def test_a_silent_stream_and_a_dead_redis_are_told(
    redis_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert screen(arguments(redis_url, tmp_path / "benign", "--seconds", "0.1")) == 2
    assert "no row of smollm2 at layer 20 came" in capsys.readouterr().err

    dead = redis_url_of(free_port())
    assert screen(arguments(dead, tmp_path / "benign", "--seconds", "0.1")) == 2
    assert "ConnectionError" in capsys.readouterr().err
