"""Send one canary after another, and see whether the audit tells of each in time."""

import datetime as dt
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from secrets import token_hex
from typing import Final, Literal, NamedTuple, Protocol, get_args

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from service.store.identity import DEFAULT_TENANT, tenant_id
from service.store.read import canaries
from service.store.tenants.read import transaction
from subtext_sidecar.contract import canary as contract
from subtext_sidecar.contract.counters import CounterName, PluginCounter, SidecarCounter, WorkerCounter
from workers.canary.endpoint import ANSWER_SECONDS, Endpoint, EndpointError
from workers.canary.prompts import Canary

log = structlog.get_logger()

Outcome = Literal["flagged", "not_flagged", "lost"]
LostAt = Literal["endpoint", "replayed", "altered", "plugin", "sidecar", "worker", "store", "half_read"]
OUTCOMES: Final[tuple[Outcome, ...]] = ("flagged", "not_flagged", "lost")
HOPS: Final[tuple[LostAt, ...]] = get_args(LostAt)

Hops = Mapping[tuple[str, str], int]
"""What was counted of canaries and of used tokens, by hop and counter."""

_JITTER: Final = 0.25  # of the interval, to either side: nobody may set his clock by it
_POLL_SECONDS: Final = 1.0
# Half of what the plugin takes, so that its clock may be this far off to either side.
_LIFETIME_SECONDS: Final = contract.MAX_LIFETIME_SECONDS // 2
# What must grow for a canary to have passed a hop, in its order.
_PASSED: Final[tuple[tuple[LostAt, CounterName], ...]] = (
    ("plugin", PluginCounter.REQUESTS_SAMPLED),
    ("sidecar", SidecarCounter.ROWS_SHIPPED),
    ("worker", WorkerCounter.ROWS_DECODED),
)


class Result(NamedTuple):
    """What became of one canary."""

    outcome: Outcome
    lost_at: LostAt | None = None


class Store(Protocol):
    """What is asked of the store. Raises SQLAlchemyError when it is away."""

    def find(self, nonce: str) -> canaries.Found:
        """Return what is stored of the canary."""

    def count_hops(self, since: dt.datetime) -> Hops:
        """Return what was counted of canaries and of used tokens from a minute on."""


class SqlStore:
    """The audit's own."""

    def __init__(self, sessions: sessionmaker[Session], model: str, tenant: str = DEFAULT_TENANT) -> None:
        """``tenant`` is the one whom the audited engines serve."""
        self._sessions = sessions
        self._model = model
        self._tenant = tenant_id(tenant)

    def find(self, nonce: str) -> canaries.Found:
        """Return what is stored of the canary."""
        with transaction(self._sessions, self._tenant) as session:
            return canaries.find(session, nonce)

    def count_hops(self, since: dt.datetime) -> Hops:
        """Return what was counted of canaries and of used tokens from a minute on."""
        with transaction(self._sessions, self._tenant) as session:
            return canaries.count_hops(session, self._model, since)


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """Sends canaries until told to stop, one at a time."""

    endpoint: Endpoint
    store: Store
    tokenize: Callable[[str], Sequence[int]]
    key: contract.CanaryKey
    model: str
    deadline_seconds: float
    interval_seconds: float
    stop: threading.Event
    observe: Callable[[Canary, Result, float], None]

    def run(self, prompts: Sequence[Canary]) -> None:
        """Go round the prompts, each time in another order."""
        for canary in _rounds(prompts):
            pause = self.interval_seconds * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311  # no secret
            if self.stop.wait(pause):
                return
            self.run_one(canary)

    def run_one(self, canary: Canary) -> Result:
        """Send the canary and wait for what becomes of it, or until told to stop."""
        result = self._result(canary)
        self.observe(canary, result, time.time())
        log.info("canary", concept=canary.concept, kind=canary.kind, **result._asdict())
        return result

    def _result(self, canary: Canary) -> Result:
        began = dt.datetime.now(dt.UTC)
        nonce = token_hex(contract.NONCE_BYTES)
        prompt = self.tokenize(canary.prompt)
        ends_at = int(began.timestamp()) + _LIFETIME_SECONDS
        said = contract.Canary(nonce, ends_at, contract.prompt_digest(prompt))
        token = contract.make_token(self.key, said, self.model)
        try:
            before = self.store.count_hops(began)
            self.endpoint.ask(prompt, token, nonce)
            found = self._wait(nonce, canary.concept)
            after = self.store.count_hops(began)
            return _judge(canary.concept, found, before, after)
        except EndpointError as error:
            log.warning("canary_not_answered", error=str(error))
            return Result("lost", "endpoint")
        except SQLAlchemyError as error:
            log.warning("store_away", error=type(error).__name__)
            return Result("lost", "store")

    def _wait(self, nonce: str, concept: str) -> canaries.Found:
        """Return what is stored at the deadline, or as soon as it is read and the concept is flagged."""
        ends_at = time.monotonic() + self.deadline_seconds
        while True:
            found = self.store.find(nonce)
            left = ends_at - time.monotonic()
            is_found = found.is_complete and concept in found.concepts
            if is_found or left <= 0 or self.stop.wait(min(_POLL_SECONDS, left)):
                return found


def longest_seconds(interval_seconds: float, deadline_seconds: float) -> float:
    """Return how long it takes at most from one canary's result to the next."""
    return interval_seconds * (1 + _JITTER) + ANSWER_SECONDS + deadline_seconds


def _rounds(prompts: Sequence[Canary]) -> Iterator[Canary]:
    while True:
        yield from random.sample(prompts, len(prompts))


def _judge(concept: str, found: canaries.Found, before: Hops, after: Hops) -> Result:
    # What was read under the nonce may be another's prompt, so it says nothing about recall.
    if found.is_replayed or _grew(PluginCounter.IGNORED_CANARY_REPLAYED, before, after):
        return Result("lost", "replayed")
    if _grew(PluginCounter.IGNORED_CANARY_ALTERED, before, after):
        return Result("lost", "altered")
    if not found.readings:
        return Result("lost", _lost_at(before, after))
    # Whether it is flagged or not: those that count must not be chosen by what was found.
    if not found.is_complete:
        return Result("lost", "half_read")
    return Result("flagged" if concept in found.concepts else "not_flagged")


def _lost_at(before: Hops, after: Hops) -> LostAt:
    for hop, counter in _PASSED:
        if not _grew(counter, before, after):
            return hop
    return "store"  # others' canaries came through meanwhile, or its rows came after the last look


def _grew(counter: CounterName, before: Hops, after: Hops) -> bool:
    key = (str(counter.hop), str(counter))
    return after.get(key, 0) > before.get(key, 0)
