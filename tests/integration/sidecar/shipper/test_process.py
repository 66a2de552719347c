"""The sidecar as a process: its command line, its HTTP and its end."""

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import zmq

from subtext_sidecar.local import wire
from tests.support.records import STREAM, block_frames
from tests.support.services import free_port
from tests.support.waiting import wait_until


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  # our own address
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""
    except OSError:
        return 0, ""


@pytest.fixture
def base_url() -> str:
    return f"http://127.0.0.1:{free_port()}"


@pytest.fixture
def process(tmp_path: Path, redis_url: str, base_url: str) -> Iterator["subprocess.Popen[bytes]"]:
    env = {
        **os.environ,
        "SUBTEXT_SOCKET": f"ipc://{tmp_path}/s.sock",
        "SUBTEXT_REDIS_URL": redis_url,
        "SUBTEXT_HTTP_PORT": base_url.rpartition(":")[2],
    }
    one = subprocess.Popen([sys.executable, "-m", "subtext_sidecar"], env=env, stderr=subprocess.PIPE)
    yield one
    one.kill()
    one.communicate()


def test_it_serves_health_ships_records_and_ends_cleanly_on_sigterm(
    process: "subprocess.Popen[bytes]", base_url: str, redis_url: str, tmp_path: Path
) -> None:
    wait_until("readiness", lambda: get(f"{base_url}/readyz")[0] == 200)
    assert get(f"{base_url}/healthz")[0] == 200
    assert get(f"{base_url}/nothing")[0] == 404

    with zmq.Context() as context, context.socket(zmq.PUSH) as plugin:
        plugin.connect(f"ipc://{tmp_path}/s.sock")
        plugin.send_multipart([wire.BLOCK, *block_frames(rows=1)])
        with redis.Redis.from_url(redis_url) as client:
            wait_until("the record", lambda: client.xlen(STREAM) == 1)

    shipped = 'subtext_activations_shipped_total{model="smollm2"} 1.0'
    wait_until("its count", lambda: shipped in get(f"{base_url}/metrics")[1])
    assert 'subtext_capture_enabled{model="",reason="plugin_silent"} 0.0' in get(f"{base_url}/metrics")[1]

    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0


def test_a_missing_setting_refuses_to_start_and_names_itself() -> None:
    env = {key: value for key, value in os.environ.items() if not key.startswith("SUBTEXT_")}

    ended = subprocess.run(
        [sys.executable, "-m", "subtext_sidecar"], env=env, capture_output=True, check=False, timeout=60
    )

    assert ended.returncode == 2
    assert b"SUBTEXT_SOCKET" in ended.stderr


def test_a_broken_screen_reference_refuses_to_start_and_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "screen").write_bytes(b"garbage")
    env = {**os.environ, "SUBTEXT_SOCKET": f"ipc://{tmp_path}/s.sock", "SUBTEXT_REDIS_URL": "redis://none"}

    ended = subprocess.run(
        [sys.executable, "-m", "subtext_sidecar", "--screen-file", str(tmp_path / "screen")],
        env=env,
        capture_output=True,
        check=False,
        timeout=60,
    )

    assert ended.returncode == 2
    assert f"{tmp_path}/screen is not a safetensors file".encode() in ended.stderr
