"""A real Prometheus and a real Alertmanager with the shipped rules and routes, on one machine."""

import json
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.support.alert_files import fast_routes, write_prometheus
from tests.support.apt import installed_alertmanager
from tests.support.services import debian_program, free_port, running_process
from tests.support.waiting import wait_until


class Notice(NamedTuple):
    """One alert as a receiver was told of it."""

    receiver: str
    status: str  # firing | resolved
    labels: dict[str, str]
    annotations: dict[str, str]

    @property
    def name(self) -> str:
        return self.labels["alertname"]


class Receiver:
    """A webhook on the loopback interface that remembers what it is told; the path names the receiver."""

    def __init__(self) -> None:
        self.notices: list[Notice] = []
        notices = self.notices

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                notices.extend(
                    Notice(self.path.strip("/"), one["status"], one["labels"], one["annotations"])
                    for one in body["alerts"]
                )
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def heard(self, name: str, status: str = "firing") -> list[Notice]:
        return [one for one in self.notices if (one.name, one.status) == (name, status)]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Alerting:
    """The running two, and what came out of them."""

    def __init__(self, receiver: Receiver, prometheus_port: int, alertmanager_port: int) -> None:
        self.receiver = receiver
        self._prometheus = f"http://127.0.0.1:{prometheus_port}"
        self._alertmanager = f"http://127.0.0.1:{alertmanager_port}"

    def is_ready(self) -> bool:
        try:
            for base in (self._prometheus, self._alertmanager):
                _get(f"{base}/-/ready")
        except OSError:
            return False
        return True

    def value(self, expr: str) -> float | None:
        """The value of an expression with at most one series."""
        query = urllib.parse.urlencode({"query": expr})
        found = json.loads(_get(f"{self._prometheus}/api/v1/query?{query}"))["data"]["result"]
        assert len(found) <= 1, found
        return float(found[0]["value"][1]) if found else None

    def inhibited(self) -> set[str]:
        """Names of the alerts that fire and are told to nobody because of another."""
        alerts = json.loads(_get(f"{self._alertmanager}/api/v2/alerts"))
        return {one["labels"]["alertname"] for one in alerts if one["status"]["inhibitedBy"]}


@contextmanager
def running_alerting(folder: Path, targets: Mapping[str, int], state_dir: Path) -> Iterator[Alerting]:
    """Run both until the block ends; ``targets`` are ports of the loopback interface by job."""
    with ExitStack() as stack:
        receiver = Receiver()
        stack.callback(receiver.close)
        ports = free_port(), free_port()
        routes = folder / "alertmanager.yml"
        routes.write_text(yaml.safe_dump(fast_routes(f"http://127.0.0.1:{receiver.port}")))
        scrapes = write_prometheus(folder, targets, ports[1])
        programs = (
            (
                debian_program(state_dir, "prometheus", "prometheus"),
                f"--config.file={scrapes}",
                f"--storage.tsdb.path={folder}/tsdb",
                # What fires before Alertmanager is known is sent again, by default after a minute.
                "--rules.alert.resend-delay=1s",
            ),
            (
                installed_alertmanager(state_dir),
                f"--config.file={routes}",
                f"--storage.path={folder}/am",
                "--cluster.listen-address=",
            ),
        )
        for command, port in zip(programs, ports, strict=True):
            address = f"--web.listen-address=127.0.0.1:{port}"
            stack.enter_context(running_process([*command, address, "--log.level=warn"]))
        alerting = Alerting(receiver, *ports)
        wait_until("Prometheus and Alertmanager are ready", alerting.is_ready, 60)
        yield alerting


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310  # our own address
        body: bytes = answer.read()
        return body
