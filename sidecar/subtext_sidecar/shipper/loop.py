"""The sidecar's loop: receive, check, screen, buffer, ship, report.

Counts reconcile at every moment, per tenant, model, stratum and minute of capture: rows_received =
rows_shipped + thinned + dropped_invalid_* + dropped_buffer_full + dropped_redis_error + what is in
the buffer. dropped_trimmed counts rows that were shipped and then pushed out of the stream before a
reader settled them; Redis does not tell which, so they are of stratum "unknown", and of whoever was heard
last.
"""

import logging
import time
from typing import Final

from subtext_sidecar.contract.record import RecordError, decode_coverage
from subtext_sidecar.contract.tenant import DEFAULT_TENANT
from subtext_sidecar.local import wire
from subtext_sidecar.local.capture_view import CaptureView
from subtext_sidecar.local.ledger import SECONDS_PER_MINUTE, Audited, Ledger
from subtext_sidecar.log import NAME
from subtext_sidecar.screen.screening import Screening
from subtext_sidecar.shipper.buffer import Buffer
from subtext_sidecar.shipper.configuration import ConfigurationNews
from subtext_sidecar.shipper.health import Health
from subtext_sidecar.shipper.intake import Frames, Intake
from subtext_sidecar.shipper.metrics import SidecarMetrics
from subtext_sidecar.shipper.outbox import Outbox
from subtext_sidecar.shipper.policy_follower import PolicyFollower
from subtext_sidecar.shipper.queue import RedisStream
from subtext_sidecar.shipper.receiver import Receiver

_BLOCK_FRAMES: Final = 2  # after the kind
_BEAT_SECONDS: Final = 2.0
_REPEAT_EVERY: Final = 15  # beats
_UNKNOWN: Final = Audited("unknown", DEFAULT_TENANT)


class Sidecar:
    """Holds the loop's state; ``step`` is one turn and never raises for bad input or a dead Redis."""

    def __init__(
        self,
        *,
        receiver: Receiver,
        stream: RedisStream,
        buffer: Buffer,
        ledger: Ledger,
        screening: Screening,
        policies: PolicyFollower,
        view: CaptureView,
        metrics: SidecarMetrics,
        health: Health,
    ) -> None:
        self._receiver = receiver
        self._buffer = buffer
        self._ledger = ledger
        self._screening = screening
        self._policies = policies
        self._view = view
        self._metrics = metrics
        self._health = health
        self._log = logging.getLogger(NAME)
        self._outbox = Outbox(stream=stream, buffer=buffer, ledger=ledger, metrics=metrics, health=health)
        self._intake = Intake(
            buffer=buffer, outbox=self._outbox, ledger=ledger, screening=screening, metrics=metrics
        )
        self._news = ConfigurationNews(ledger.source)
        self._heard = _UNKNOWN  # of whose rows or status came last
        self._reason = ""  # of the plugin's last status
        self._beat_at = 0.0
        self._beats = 0

    def step(self, timeout_seconds: float) -> int:
        """Make one turn; wait at most ``timeout_seconds`` for messages. Returns how many came."""
        if time.monotonic() >= self._beat_at:
            self._beat()
        messages = self._receiver.receive(timeout_seconds)
        minute = _minute()
        blocks: list[Frames] = []
        for kind, *frames in messages:
            if kind == wire.BLOCK and len(frames) == _BLOCK_FRAMES:
                blocks.append((frames[0], frames[1]))
            else:
                self._accept_other(kind, frames)
        self._heard = self._intake.accept(blocks, minute, self._heard)
        self._screening.adapt(time.monotonic())
        self._outbox.ship(minute, self._heard)
        self._health.turn()
        return len(messages)

    def drain(self, deadline_seconds: float) -> None:
        """Take what is in the socket, ship what can be shipped in time, and account for the rest."""
        deadline = time.monotonic() + deadline_seconds
        while self.step(0.0) and time.monotonic() < deadline:
            continue
        while len(self._buffer) and time.monotonic() < deadline:
            self.step(0.05)
        self._outbox.give_up(_minute(), self._heard)
        self._beat()

    def _accept_other(self, kind: bytes, frames: list[bytes]) -> None:
        if kind in {wire.STATUS, wire.COVERAGE} and len(frames) == 1:
            self._accept_report(kind, frames[0])
        else:
            self._metrics.invalid_messages.labels("unknown").inc()

    def _accept_report(self, kind: bytes, payload: bytes) -> None:
        try:
            if kind == wire.STATUS:
                self._hear(wire.decode_status(payload))
            else:
                count = decode_coverage(payload)
                self._view.update_coverage(count)
                self._outbox.keep(count)
        except RecordError as error:
            self._metrics.invalid_messages.labels("status" if kind == wire.STATUS else "coverage").inc()
            self._log.warning("report_invalid", extra={"fields": {"detail": str(error)}})

    def _hear(self, status: wire.CaptureStatus) -> None:
        self._heard = Audited(status.model, status.tenant)
        self._intake.expect(status.model, status.layer)
        self._news.hear(status, time.monotonic())
        self._view.update_status(status, time.monotonic())
        self._metrics.show_policy(status.model, self._policies.version, status.policy_version)
        if status.reason != self._reason:
            fields = {"source": status.source, "reason": status.reason, "detail": status.detail}
            self._log.info("capture_state_changed", extra={"fields": fields})
            self._reason = status.reason

    def _beat(self) -> None:
        """Follow the policy file, report, and refresh what the metrics show."""
        minute = _minute()
        if self._beats % _REPEAT_EVERY == 0:
            self._ledger.repeat(minute)
        self._beats += 1
        self._beat_at = time.monotonic() + _BEAT_SECONDS
        self._policies.beat()
        for count in self._ledger.take_changed():
            self._view.update_coverage(count)
            self._outbox.keep(count)
        self._view.tick(time.monotonic(), minute)
        if self._heard != _UNKNOWN:
            self._metrics.show_rates(self._heard.model, self._screening.rates)
        self._tell_configurations(time.monotonic())
        self._outbox.report()

    def _tell_configurations(self, now: float) -> None:
        self._news.screen(self._screening.policy, self._screening.reference)
        due = self._news.due(now)
        if due and self._outbox.tell(due):
            self._news.told(due, now)


def _minute() -> int:
    return int(time.time()) // SECONDS_PER_MINUTE
