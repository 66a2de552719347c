"""Who listens to what happens now, and the one thread of the process that looks for all of them.

Listeners of one tenant and the same models share a look, so that tabs cost no queries. A look is told
whole and replaces the one before: a listener that reads slowly misses looks in between, and nothing of the
last one. It knows neither SQL nor HTTP.
"""

import asyncio
import hashlib
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal, NamedTuple

import structlog

from service.store.tenants.scope import Reach

_log: Final = structlog.get_logger(__name__)

EVERY_SECONDS: Final = 2.0
STREAMS_AT_MOST: Final = 200
"""In one process. Each is a connection and some kilobytes, and no thread."""
STREAMS_OF_TENANT_AT_MOST: Final = 150
"""So that no tenant, however many keys and sessions it makes, takes every place."""
STREAMS_OF_ONE_AT_MOST: Final = 12
"""Of one session or key: tabs of a browser."""
_LEAST_PAUSE_SECONDS: Final = 0.2
_LARGEST_SHARE_OF_TIME: Final = 0.25  # of a database connection


class Part(StrEnum):
    """What a look tells of; each needs a scope of its own."""

    COVERAGE = "coverage"
    READINGS = "readings"
    INCIDENTS = "incidents"


class End(StrEnum):
    """Why a stream is ended from our side."""

    ACCESS_ENDED = "access_ended"  # the key or session works no more
    ACCESS_CHANGED = "access_changed"  # it grants something else now: listen anew
    SHUTTING_DOWN = "shutting_down"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Whom a stream is for: what was granted when it began. All streams of one key or session are equal."""

    reach: Reach
    scopes: frozenset[str]
    parts: frozenset[Part]
    key_id: uuid.UUID | None
    session_id: uuid.UUID | None


class Look(NamedTuple):
    """What one look at one reach found."""

    at: str
    """RFC 3339, by the clock of whoever looked."""
    parts: Mapping[Part, bytes]
    """JSON in one line, without the time of the look, so that what did not change is equal."""
    over: Mapping[Listener, End]
    """Whose streams have to end."""


class AwayError(Exception):
    """Nothing can be looked up just now."""


Find = Callable[[Reach, Collection[Part], Collection[Listener]], Look]
"""Looks once; raises AwayError."""


class TooManyError(Exception):
    """No further stream: of this listener, of its tenant, or of anybody."""

    def __init__(self, *, of_whom: Literal["key or session", "tenant", "process"]) -> None:
        super().__init__(f"of this {of_whom}")
        self.of_whom = of_whom


class Frame(NamedTuple):
    """One part as it is sent."""

    version: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What a stream's listener may know by now."""

    frames: Mapping[Part, Frame] = field(default_factory=dict)
    looked_at: str | None = None
    """None: not yet."""
    is_away: bool = False
    """Whether the last try to look failed: the frames are of before."""
    end: End | None = None


class Subscription:
    """One stream's place. Made and read in the event loop, published to by the hub's thread."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.state = State()
        self._loop = asyncio.get_running_loop()
        self._is_new = asyncio.Event()

    def publish(self, state: State) -> None:
        """Replace what is known; from any thread."""
        self.state = state
        with suppress(RuntimeError):  # the loop is closed, and nobody listens any more
            self._loop.call_soon_threadsafe(self._is_new.set)

    async def wait(self, seconds: float) -> None:
        """Wait for a look to be published, or for so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._is_new.wait()
        self._is_new.clear()


class Hub:
    """Looks for all subscriptions, in one thread that begins with the first of them."""

    def __init__(
        self,
        find: Find,
        *,
        every_seconds: float = EVERY_SECONDS,
        at_most: int = STREAMS_AT_MOST,
        of_one_at_most: int = STREAMS_OF_ONE_AT_MOST,
        of_tenant_at_most: int = STREAMS_OF_TENANT_AT_MOST,
    ) -> None:
        self._find = find
        self._every_seconds = every_seconds
        self._at_most = at_most
        self._of_one_at_most = of_one_at_most
        self._of_tenant_at_most = of_tenant_at_most
        self._changed = threading.Condition()
        self._subscriptions: list[Subscription] = []
        self._is_asked = False
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def subscribe(self, listener: Listener) -> Subscription:
        """Return a new subscription, which gets its first look at once; raises TooManyError."""
        with self._changed:
            of_whom = Counter(_who(one.listener) for one in self._subscriptions)
            if of_whom[_who(listener)] >= self._of_one_at_most:
                raise TooManyError(of_whom="key or session")
            of_tenant = Counter(one.listener.reach.tenant for one in self._subscriptions)
            if of_tenant[listener.reach.tenant] >= self._of_tenant_at_most:
                raise TooManyError(of_whom="tenant")
            if len(self._subscriptions) >= self._at_most:
                raise TooManyError(of_whom="process")
            made = Subscription(listener)
            self._subscriptions.append(made)
            self._is_asked = True
            if self._is_closed:
                made.publish(State(end=End.SHUTTING_DOWN))
            elif self._thread is None:
                self._thread = threading.Thread(target=self._run, name="live", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return made

    def unsubscribe(self, subscription: Subscription) -> None:
        """Give the place up."""
        with self._changed, suppress(ValueError):
            self._subscriptions.remove(subscription)

    @property
    def streams(self) -> int:
        """How many there are."""
        with self._changed:
            return len(self._subscriptions)

    def close(self) -> None:
        """End every stream and the thread; does not wait for a look under way."""
        with self._changed:
            self._is_closed = True
            for one in self._subscriptions:
                one.publish(State(end=End.SHUTTING_DOWN))
            self._changed.notify_all()

    def look(self) -> None:
        """Look once for everybody who listens."""
        with self._changed:
            waiting = list(self._subscriptions)
        of_reach: defaultdict[Reach, list[Subscription]] = defaultdict(list)
        for one in waiting:
            of_reach[one.listener.reach].append(one)
        for reach, subscriptions in of_reach.items():
            self._look_at(reach, subscriptions)

    def _look_at(self, reach: Reach, subscriptions: Iterable[Subscription]) -> None:
        listeners = {one.listener for one in subscriptions}
        parts = frozenset().union(*(one.parts for one in listeners))
        try:
            found: Look | None = self._find(reach, parts, listeners)
        except Exception as error:  # noqa: BLE001  # one tenant's row must not end the thread of all
            if not isinstance(error, AwayError):
                # Its message may have values of rows.
                _log.error("live_look_broken", error_type=type(error).__name__)
            found = None
        frames = {} if found is None else {part: _frame(data) for part, data in found.parts.items()}
        with self._changed:
            if not self._is_closed:  # what ended stays so
                for one in subscriptions:
                    one.publish(_next(one, found, frames))

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed or bool(self._subscriptions))
                if self._is_closed:
                    return
                self._is_asked = False
            began = time.monotonic()
            self.look()
            pause = max(self._every_seconds, (time.monotonic() - began) / _LARGEST_SHARE_OF_TIME)
            with self._changed:
                # A new listener is not kept waiting, and many of them do not make looks of their own.
                self._changed.wait_for(lambda: self._is_closed, _LEAST_PAUSE_SECONDS)
                self._changed.wait_for(
                    lambda: self._is_closed or self._is_asked, max(0.0, pause - _LEAST_PAUSE_SECONDS)
                )


def _who(listener: Listener) -> uuid.UUID | None:
    return listener.session_id or listener.key_id


def _frame(data: bytes) -> Frame:
    return Frame(hashlib.sha256(data).hexdigest()[:16], data)


def _next(subscription: Subscription, found: Look | None, frames: Mapping[Part, Frame]) -> State:
    before, listener = subscription.state, subscription.listener
    if found is None:
        return State(frames=before.frames, looked_at=before.looked_at, is_away=True)
    end = found.over.get(listener)
    own = {} if end else {part: frame for part, frame in frames.items() if part in listener.parts}
    return State(frames=own, looked_at=found.at, end=end)
