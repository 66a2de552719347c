"""A sidecar is restarted, an engine replaced: no counter of Prometheus falls or counts again."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import zmq
from prometheus_client.parser import text_string_to_metric_families

from subtext_sidecar.contract.counters import Hop, Stratum
from subtext_sidecar.contract.record import VERSION, CoverageCount, encode_coverage
from subtext_sidecar.local import wire
from tests.support.records import status
from tests.support.services import free_port
from tests.support.waiting import wait_until

Counters = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Sidecar:
    """A running process, and what a plugin tells it."""

    def __init__(self, url: str, plugin: "zmq.Socket[bytes]") -> None:
        self._url = url
        self._plugin = plugin

    def hear(self, source: str, minutes: range, *, dropped: int, errors: int = 0) -> None:
        """Tell all that an engine counted: so many dropped rows in each minute, and so many errors."""
        times = {"sender": 0.0} if errors else {}
        said = status(source, errors={"sender": errors} if errors else {}, error_times=times)
        self._plugin.send_multipart([wire.STATUS, wire.encode_status(said)])
        for minute in minutes:
            count = CoverageCount(
                v=VERSION,
                source=source,
                hop=Hop.PLUGIN,
                model="m",
                stratum=Stratum.UNIFORM,
                minute=minute,
                counts={"requests_seen": 2 * dropped, "dropped_socket_full": dropped},
            )
            self._plugin.send_multipart([wire.COVERAGE, encode_coverage(count)])

    def counters(self) -> Counters:
        text = httpx.get(f"{self._url}/metrics", timeout=30, trust_env=False).text
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            if family.type in {"counter", "histogram"}
            for sample in family.samples
            if sample.name.startswith("subtext_") and not sample.name.endswith("_created")
        }

    def total(self, name: str, **labels: str) -> float:
        return sum(
            value
            for (found, said), value in self.counters().items()
            if found == name and labels.items() <= dict(said).items()
        )


@contextmanager
def running_sidecar(folder: Path, redis_url: str) -> Iterator[Sidecar]:
    port, address = free_port(), f"ipc://{folder}/s.sock"
    env = {"SUBTEXT_SOCKET": address, "SUBTEXT_REDIS_URL": redis_url, "SUBTEXT_HTTP_PORT": str(port)}
    process = subprocess.Popen([sys.executable, "-m", "subtext_sidecar"], env=os.environ | env)
    url = f"http://127.0.0.1:{port}"

    def is_ready() -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{url}/readyz", timeout=30, trust_env=False).status_code == httpx.codes.OK
        return False

    wait_until("the sidecar is ready", is_ready, 60)
    with zmq.Context() as context, context.socket(zmq.PUSH) as plugin:
        plugin.setsockopt(zmq.LINGER, 0)
        plugin.connect(address)
        yield Sidecar(url, plugin)
    process.kill()
    process.wait()


def test_a_restarted_sidecar_counts_nothing_again(tmp_path: Path, redis_url: str) -> None:
    now = int(time.time()) // 60
    with running_sidecar(tmp_path, redis_url) as first:
        first.hear("engine", range(now - 15, now + 1), dropped=100, errors=3)
        wait_until("it is counted", lambda: first.total("subtext_requests_seen_total") > 0)

    with running_sidecar(tmp_path, redis_url) as second:
        second.hear("engine", range(now - 15, now), dropped=100, errors=3)
        wait_until("it is heard", lambda: second.total("subtext_capture_overhead_seconds_count") >= 0)
        second.hear("engine", range(now - 1, now), dropped=101, errors=3)

        wait_until(
            "growth alone is counted",
            lambda: second.total("subtext_activations_dropped_total", reason="socket_full") == 1,
        )
        assert second.total("subtext_requests_seen_total") == 2
        assert second.total("subtext_capture_errors_total") == 0


def test_no_counter_falls_when_an_engine_is_replaced(tmp_path: Path, redis_url: str) -> None:
    now = int(time.time()) // 60
    with running_sidecar(tmp_path, redis_url) as sidecar:
        for source in ("one", "two"):
            sidecar.hear(source, range(now, now + 1), dropped=100)
        wait_until("both are counted", lambda: sidecar.total("subtext_requests_seen_total") >= 400)
        before = sidecar.counters()

        sidecar.hear("three", range(now, now + 1), dropped=1)
        wait_until("the new one is counted", lambda: sidecar.total("subtext_requests_seen_total") >= 402)

        after = sidecar.counters()
        assert {name for name, value in before.items() if after.get(name, -1.0) < value} == set()
