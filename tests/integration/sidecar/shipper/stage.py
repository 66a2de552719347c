"""A sidecar between a plugin's socket and a real Valkey, turned by the test, and what its streams say."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq
from prometheus_client import CollectorRegistry

from subtext_sidecar.anomaly.score import Detector
from subtext_sidecar.contract.counters import Hop
from subtext_sidecar.contract.record import Record, decode, decode_coverage
from subtext_sidecar.contract.streams import COVERAGE_STREAM, activations_stream
from subtext_sidecar.local.capture_view import CaptureView
from subtext_sidecar.local.ledger import Ledger
from subtext_sidecar.local.policy import ScreenPolicy
from subtext_sidecar.local.policy_channel import PolicyPublisher, PolicySubscriber
from subtext_sidecar.screen.screening import Screening
from subtext_sidecar.shipper.buffer import Buffer
from subtext_sidecar.shipper.health import Health
from subtext_sidecar.shipper.loop import Sidecar
from subtext_sidecar.shipper.metrics import SidecarMetrics
from subtext_sidecar.shipper.policy_file import PolicyFile
from subtext_sidecar.shipper.policy_follower import PolicyFollower
from subtext_sidecar.shipper.queue import RedisStream
from subtext_sidecar.shipper.receiver import Receiver
from tests.support.letters import letters_of
from tests.support.records import STREAM
from tests.support.waiting import wait_until

MIB = 1 << 20


class Stage:
    """A sidecar with a plugin's socket in front and a Valkey behind it."""

    def __init__(
        self,
        *,
        address: str,
        url: str,
        buffer_bytes: int,
        stream_bytes: int,
        detector: Detector | None,
        policy_file: Path | None,
    ) -> None:
        self.address = address
        self.registry = CollectorRegistry()
        self.health = Health()
        view = CaptureView()
        self.registry.register(view)
        self.receiver = Receiver(address)
        self.stream = RedisStream(url, max_stream_bytes=stream_bytes)
        self.buffer = Buffer(buffer_bytes)
        self.ledger = Ledger(source="sidecar-test", hop=Hop.SIDECAR)
        self.publisher = PolicyPublisher(self.receiver.context, address)
        metrics = SidecarMetrics(self.registry)
        screening = Screening(detector, ScreenPolicy(), time.monotonic())
        self.sidecar = Sidecar(
            receiver=self.receiver,
            stream=self.stream,
            buffer=self.buffer,
            ledger=self.ledger,
            screening=screening,
            policies=PolicyFollower(
                file=None if policy_file is None else PolicyFile(policy_file),
                publisher=self.publisher,
                screening=screening,
                metrics=metrics,
            ),
            view=view,
            metrics=metrics,
            health=self.health,
        )
        self.context = zmq.Context()
        self.plugin = self.context.socket(zmq.PUSH)
        self.plugin.setsockopt(zmq.LINGER, 0)
        self.plugin.connect(address)

    def send(self, *message: bytes) -> None:
        self.plugin.send_multipart(list(message))

    def subscribe(self) -> PolicySubscriber:
        """What the plugin hears of policies; close it with the test."""
        return PolicySubscriber(self.context, self.address)

    def step_until(
        self, condition: Callable[[], bool], seconds: float = 20.0, what: str = "the condition"
    ) -> None:
        wait_until(what, condition, seconds, meanwhile=lambda: self.sidecar.step(0.05))

    def value(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0

    def close(self) -> None:
        self.plugin.close()
        self.context.term()
        self.publisher.close()
        self.receiver.close()
        self.stream.close()


def totals(client: Any, hop: str, tenant: str | None = None) -> dict[tuple[str, str], int]:
    """Coverage by stratum and counter as a reader sums it: the largest value in each minute.

    ``tenant`` None: of all of them together.
    """
    largest: dict[tuple[str, str, str, int, str, str], int] = {}
    for _, fields in client.xrange(COVERAGE_STREAM):
        count = decode_coverage(fields[b"h"])
        for counter, value in count.counts.items():
            if count.hop == hop and tenant in {None, count.tenant}:
                key = (count.source, count.tenant, count.model, count.minute, count.stratum, counter)
                largest[key] = max(largest.get(key, 0), value)
    sums: dict[tuple[str, str], int] = {}
    for (*_, stratum, counter), value in largest.items():
        sums[stratum, counter] = sums.get((stratum, counter), 0) + value
    return sums


def shipped(client: Any) -> list[Record]:
    """Every record in the stream; one that a worker would refuse fails the test."""
    return [decode(fields[b"h"], fields[b"a"]) for _, fields in client.xrange(STREAM)]


def letters(client: Any) -> list[dict[bytes, bytes]]:
    """Every letter of the sidecar's; of a block before the first good one it knows no stream."""
    names = (STREAM, activations_stream("unknown", 0))
    return [letter for name in names for letter in letters_of(client, name)]


def over_strata(hop_totals: dict[tuple[str, str], int]) -> dict[str, int]:
    """Sum over strata."""
    sums: dict[str, int] = {}
    for (_, counter), value in hop_totals.items():
        sums[counter] = sums.get(counter, 0) + value
    return sums
