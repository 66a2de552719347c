"""The shipped rules and routes in a real Prometheus and Alertmanager, over the processes that they watch.

Sidecar and service are processes of their own; the worker is all of one around the in-memory decoder. Rows
come to its stream from the test, which also stands in for the plugin's heartbeat.
"""

import datetime as dt
import itertools
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
import zmq
from numpy.typing import NDArray

from subtext_sidecar.contract import streams
from subtext_sidecar.local import wire
from tests.support.alerting import Alerting, running_alerting
from tests.support.calibrations import calibration_of
from tests.support.records import status
from tests.support.service import running_service
from tests.support.services import free_port, running_process
from tests.support.waiting import wait_until
from tests.support.worker import MODEL, Bench, make_record, running
from workers.judge import calibration
from workers.judge.concepts import load_concepts
from workers.nla.fake import FakeDecoder, describe

PLANTED = 1_000_000.0
"""Figures of vectors from here on are read as talk of a bomb, which the worker's concepts call critical."""
BENIGN_SCRAPES = 15
"""Longer than any rule of the first ten minutes waits, at a 60th of its time."""
SECONDS = 60.0


def text(vector: NDArray[np.float32]) -> str:
    return f"{describe(vector)}, about a bomb" if vector[1] >= PLANTED else describe(vector)


@contextmanager
def heartbeats(socket: str) -> Iterator[None]:
    """Say once a second that the plugin captures."""
    stop = threading.Event()

    def beat() -> None:
        with zmq.Context() as context, context.socket(zmq.PUSH) as plugin:
            plugin.setsockopt(zmq.LINGER, 0)
            plugin.connect(socket)
            while not stop.wait(1.0):
                plugin.send_multipart([wire.STATUS, wire.encode_status(status(model=MODEL))])

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10)


@contextmanager
def sidecar(folder: Path, redis_url: str) -> Iterator[int]:
    """Run a sidecar process whose plugin captures; yield its port."""
    port, socket = free_port(), f"ipc://{folder}/s.sock"
    settings = {"SOCKET": socket, "REDIS_URL": redis_url, "HTTP_PORT": str(port)}
    env = {f"SUBTEXT_{name}": value for name, value in settings.items()}
    with running_process([sys.executable, "-m", "subtext_sidecar"], env), heartbeats(socket):
        yield port


def is_shown(port: int, line: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            return line in answer.read().decode()
    except OSError:
        return False


def is_refused(port: int) -> bool:
    """Ask for flags with a key that nobody made."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/flags", headers={"X-API-Key": "guessed"})
    try:
        with urllib.request.urlopen(request, timeout=5):  # noqa: S310
            return False
    except urllib.error.HTTPError as error:
        return error.code == 401
    except OSError:
        return False


class Traffic:
    """Requests of two rows each, no two vectors alike."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._numbers = itertools.count()

    def send(self, requests: int, *, planted: bool = False) -> None:
        for _ in range(requests):
            number = next(self._numbers)
            for position in (2 * number, 2 * number + 1):
                vector_at = position + int(PLANTED) if planted else position
                self._bench.add(*make_record(position=vector_at, request_id=f"request-{number}"))


@pytest.fixture
def worker(make_bench: Callable[..., Bench], concepts_file: Path, tmp_path: Path) -> Iterator[Bench]:
    """A worker whose concepts are calibrated and gauges measured, and whose loop the test runs."""
    decoder = FakeDecoder(text=text)
    concepts = load_concepts(concepts_file)
    calibrated = calibration_of(concepts, decoder.identity, made_at=dt.datetime.now(dt.UTC))
    calibration.save(calibrated, tmp_path / "calibration.json")
    bench = make_bench(decoder, concept_calibration_file=tmp_path / "calibration.json")
    stop = threading.Event()
    gauges = threading.Thread(target=bench.parts.gauges.run, args=(stop,), daemon=True)
    gauges.start()
    yield bench
    stop.set()
    gauges.join(20)


@pytest.fixture
def alerting(
    worker: Bench, reader_url: str, redis_url: str, state_dir: Path, tmp_path: Path
) -> Iterator[Alerting]:
    port = free_port()
    settings = {
        "database_url": reader_url,
        "http_port": str(port),
        "prevalence_every_seconds": "1",
        "prevalence_thresholds": "bombs=0.05",
    }
    with ExitStack() as stack:
        stack.enter_context(running_service(**settings))
        watched = {
            "subtext-sidecar": stack.enter_context(sidecar(tmp_path, redis_url)),
            "subtext-worker": worker.parts.health.port,
            "subtext-service": port,
        }
        captures = f'subtext_capture_enabled{{model="{MODEL}",reason="ok"}} 1.0'
        wait_until(
            "the sidecar hears the plugin", lambda: is_shown(watched["subtext-sidecar"], captures), 90
        )
        wait_until("the service answers", lambda: is_refused(port), 90)
        yield stack.enter_context(running_alerting(tmp_path, watched, state_dir))


def test_alerts_reach_the_receiver_that_is_theirs_and_none_comes_of_benign_traffic(
    alerting: Alerting, worker: Bench
) -> None:
    heard, traffic = alerting.receiver.heard, Traffic(worker)

    with running(worker):
        # Benign traffic: the watchdog alone.
        traffic.send(30)
        wait_until(
            "the benign readings are scraped",
            lambda: alerting.value("sum(subtext_explanations_stored_total)") == 60,
            SECONDS,
        )
        scrapes = 'min(count_over_time(up{job=~"subtext-.+"}[1h]))'
        wait_until(
            "alerts had time to fire",
            lambda: (alerting.value(scrapes) or 0) >= BENIGN_SCRAPES,
            SECONDS,
        )
        assert alerting.value("min(up)") == 1
        wait_until("the watchdog", lambda: heard("SubtextWatchdog"), SECONDS)
        assert {(one.receiver, one.name) for one in alerting.receiver.notices} == {
            ("watchdog", "SubtextWatchdog")
        }

        # One critical flag is a ticket, the first of its concept too.
        traffic.send(1, planted=True)
        [flag, *_] = wait_until("the ticket", lambda: heard("SubtextFlagSevere"), SECONDS)
        assert (flag.receiver, flag.labels["concept"], flag.labels["model"]) == ("tickets", "bombs", MODEL)
        assert flag.annotations["runbook_url"] == "docs/runbooks/flag-rate.md"

        # Many make the concept common by more than chance.
        assert not heard("SubtextConceptPrevalenceHigh")
        assert not heard("SubtextConceptExcess")
        traffic.send(19, planted=True)
        [ticket, *_] = wait_until("the ticket", lambda: heard("SubtextConceptPrevalenceHigh"), SECONDS)
        assert (ticket.receiver, ticket.labels["concept"]) == ("tickets", "bombs")
        [page, *_] = wait_until("the page", lambda: heard("SubtextConceptExcess"), SECONDS)
        assert (page.receiver, page.labels["concept"], page.labels["model"]) == ("pager", "bombs", MODEL)

    # What waits for half an hour pages, and its lesser alert is inhibited.
    waiting = f"{int(time.time() * 1000) - 2_000_000}-0"
    worker.client.xadd(streams.OLD_ACTIVATIONS_STREAM, {"h": b"", "a": b""}, id=waiting)
    wait_until("the page", lambda: heard("SubtextBacklogVeryOld"), SECONDS)
    wait_until("the inhibition", lambda: "SubtextBacklogOld" in alerting.inhibited(), SECONDS)
    assert {one.receiver for one in heard("SubtextBacklogVeryOld")} == {"pager"}

    # Once it is over, whoever was told of it is told so.
    worker.client.xdel(streams.OLD_ACTIVATIONS_STREAM, waiting)
    wait_until("the end", lambda: heard("SubtextBacklogVeryOld", "resolved"), SECONDS)
    assert not heard("SubtextBacklogOld")
    assert not heard("SubtextBacklogOld", "resolved")
    assert not heard("SubtextWatchdog", "resolved")
