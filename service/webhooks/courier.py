"""Takes messages from the outbox to their destinations: a thread for each, at least once, with backoff."""

import datetime as dt
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from service.incident_metrics import IncidentMetrics
from service.store import outbox
from service.store.engine import UnusableDatabaseError
from service.store.tenants.read import of_each, transaction
from service.webhooks import message, transport
from service.webhooks.destinations import Destination

_log: Final = structlog.get_logger(__name__)

Checkpoint = Literal["claimed", "sent", "marked"]
"""Names of the moments between two steps, for tests that kill the process there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How often and how long a message is tried."""

    max_attempts: int = 12
    first_pause: dt.timedelta = dt.timedelta(seconds=5)
    factor: float = 4.0
    longest_pause: dt.timedelta = dt.timedelta(hours=6)
    """With these, a receiver may be away for about a day."""
    lease: dt.timedelta = dt.timedelta(minutes=2)
    """Longer than any attempt takes, the look-up of the host's name included."""
    idle_seconds: float = 1.0
    outage_seconds: float = 15.0
    whole_look_seconds: float = 900.0
    """How often it looks at more than the newest messages: for what was committed late, or never sent."""

    def pause_after(self, attempts: int) -> dt.timedelta:
        """Return how long to wait after so many attempts: exponential, with half of it at random."""
        most = min(self.first_pause * self.factor ** (attempts - 1), self.longest_pause)
        return most * random.uniform(0.5, 1.0)  # noqa: S311  # no secret


class _Looks:
    """How far back to look for messages of one destination that are not routed."""

    def __init__(self, whole_seconds: float) -> None:
        self._whole_seconds = whole_seconds
        self._last: float | None = None
        self._last_whole = 0.0

    def next_within(self, now: float) -> dt.timedelta:
        """Return up to which age: by ``now``, of a monotonic clock.

        The first look notes no expiry: nobody has seen the counter before it.
        """
        if self._last is None:
            return outbox.ROUTED_WITHIN
        if now - self._last_whole >= self._whole_seconds:
            return outbox.NOTED_WITHIN
        is_late = now - self._last > outbox.JUST_NOW.total_seconds() / 2
        return outbox.ROUTED_WITHIN if is_late else outbox.JUST_NOW

    def note(self, within: dt.timedelta, now: float) -> None:
        """Take into account a look that succeeded."""
        if self._last is None or within == outbox.NOTED_WITHIN:
            self._last_whole = now
        self._last = now


class Courier:
    """Delivers to every destination until it is closed."""

    def __init__(
        self,
        sessions: sessionmaker[Session],
        destinations: Sequence[Destination],
        metrics: IncidentMetrics,
        *,
        public_url: str = "",
        limits: Limits | None = None,
        reached: Callable[[Checkpoint], None] = lambda _: None,
    ) -> None:
        """``reached`` is called at each Checkpoint."""
        self._sessions = sessions
        self._names = [destination.name for destination in destinations]
        self._metrics = metrics
        self._public_url = public_url
        self._limits = limits or Limits()
        self._reached = reached
        self._stop = threading.Event()
        self._looks = {name: _Looks(self._limits.whole_look_seconds) for name in self._names}
        self._threads = [
            threading.Thread(target=self._run, args=(one,), name=f"webhook-{one.name}", daemon=True)
            for one in destinations
        ]
        metrics.show_destinations(self._names)

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End, after the attempts under way."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=transport.WHOLE_SECONDS)

    def deliver_next(self, destination: Destination) -> bool:
        """Route what is new and make one attempt; False when nothing was due."""
        self._route(destination)
        with transaction(self._sessions, destination.tenant_id) as session:
            claimed = outbox.claim(session, destination.name, self._limits.lease)
        if claimed is None:
            return False
        self._reached("claimed")
        self._attempt(destination, claimed)
        self._reached("marked")
        return True

    def _route(self, destination: Destination) -> None:
        """Take on what the destination is owed; before anything is sent, so that nothing urgent waits."""
        looks, now = self._looks[destination.name], time.monotonic()
        within = looks.next_within(now)
        before: dt.datetime | None = None
        while not self._stop.is_set():
            with transaction(self._sessions, destination.tenant_id) as session:
                new = outbox.route(session, destination.name, within, before)
            self._tell_expired(destination.name, new.expired)
            if new.sent + new.expired < outbox.ROUTED_AT_ONCE:
                break
            before = new.oldest
        if within == outbox.NOTED_WITHIN:
            for abandoned in of_each(self._sessions, outbox.expire):
                for name, messages in abandoned.items():
                    self._tell_expired(name, messages)
        looks.note(within, now)

    def _tell_expired(self, destination: str, messages: int) -> None:
        if messages:
            self._metrics.observe_delivery(destination, "expired", messages)
            _log.warning("webhook_messages_expired", destination=destination, messages=messages)

    def _attempt(self, destination: Destination, claimed: outbox.Claim) -> None:
        try:
            self._send(destination, claimed)
        except transport.DeliveryError as error:
            self._fail(destination, claimed, error)
            return
        self._reached("sent")
        with transaction(self._sessions, destination.tenant_id) as session:
            outbox.mark_delivered(session, claimed)
        self._metrics.observe_delivery(claimed.destination, "delivered")

    def _send(self, destination: Destination, claimed: outbox.Claim) -> None:
        if claimed.attempts > self._limits.max_attempts:  # its senders died, or broke
            raise transport.DeliveryError("no attempt came to its end", is_final=True)
        with transaction(self._sessions, destination.tenant_id) as session:
            told = outbox.get_telling(session, claimed.event_id)
        try:
            content = message.body(told, self._public_url)
        except (AttributeError, KeyError, TypeError, ValueError) as error:  # a row that no worker wrote
            raise transport.DeliveryError("its event cannot be told", is_final=True) from error
        try:
            secrets = destination.secrets  # anew each time, so that a secret is changed while we run
        except ValueError as error:
            raise transport.DeliveryError("the secret file cannot be read") from error
        signed = message.headers(str(claimed.event_id), content, secrets, dt.datetime.now(dt.UTC))
        transport.post(destination, content, {"Content-Type": message.CONTENT_TYPE, **signed})

    def _fail(
        self, destination: Destination, claimed: outbox.Claim, error: transport.DeliveryError
    ) -> None:
        is_last = error.is_final or claimed.attempts >= self._limits.max_attempts
        with transaction(self._sessions, destination.tenant_id) as session:
            if is_last:
                outbox.mark_failed(session, claimed, str(error))
            else:
                outbox.postpone(session, claimed, str(error), self._limits.pause_after(claimed.attempts))
        self._metrics.observe_delivery(claimed.destination, "failed" if is_last else "retried")
        _log.warning(
            "webhook_not_delivered",
            destination=claimed.destination,
            message=str(claimed.event_id),
            attempts=claimed.attempts,
            given_up=is_last,
            error=str(error),
        )

    def _run(self, destination: Destination) -> None:
        while not self._stop.is_set():
            try:
                pause = 0.0 if self.deliver_next(destination) else self._limits.idle_seconds
            except (SQLAlchemyError, UnusableDatabaseError) as error:
                pause = self._limits.outage_seconds
                _log.warning("webhooks_wait_for_database", error_type=type(error).__name__)
            except Exception:  # noqa: BLE001  # the boundary of a job
                # The message is due again when its lease ends.
                pause = self._limits.outage_seconds
                _log.exception("webhook_attempt_broke", destination=destination.name)
            self._stop.wait(pause)
