"""Prevalence of the last hours as metrics, worked out beside the requests: a scrape waits for nothing."""

import datetime as dt
import threading
import time
from collections.abc import Iterable
from itertools import chain
from typing import Final, NamedTuple

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from service.metrics import Metrics, PrevalenceSample
from service.prevalence.retained import retained_by_cell
from service.prevalence.statement import ConceptPrevalence, concept_prevalences
from service.store.engine import UnusableDatabaseError
from service.store.read import prevalence
from service.store.tables import FlagStatus
from service.store.tenants.read import of_each
from service.watch.all_tenants import highest

_log: Final = structlog.get_logger(__name__)
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_LARGEST_SHARE_OF_TIME: Final = 0.1  # of a database connection


class WatchPlan(NamedTuple):
    """What to work out, and how often."""

    hours: int
    every_seconds: float
    concepts: Iterable[str]  # watched whether or not they were flagged


class PrevalenceWatch:
    """Works all prevalences out again and again in a thread of its own."""

    def __init__(self, sessions: sessionmaker[Session], metrics: Metrics, plan: WatchPlan) -> None:
        self._sessions = sessions
        self._metrics = metrics
        self._plan = plan
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prevalence-watch", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End, after a query that runs."""
        self._stop.set()
        self._thread.join(timeout=5)

    def refresh(self, now: dt.datetime) -> None:
        """Work everything out once; while the database is away the metrics keep their last values."""
        try:
            of_tenants = of_each(
                self._sessions,
                lambda session: self._samples(session, now),
                isolation_level="REPEATABLE READ",
            )
        except (SQLAlchemyError, UnusableDatabaseError) as error:
            _log.warning("prevalence_not_refreshed", error_type=type(error).__name__)
            return
        self._metrics.set_prevalences(highest(chain.from_iterable(of_tenants)), now)

    def _samples(self, session: Session, now: dt.datetime) -> list[PrevalenceSample]:
        start = window_start(now, self._plan.hours)
        samples: list[PrevalenceSample] = []
        for model in prevalence.list_models(session):
            window = prevalence.Window(model=model, start=start, end=now)
            groups = prevalence.list_groups(session, window)
            retained = retained_by_cell(prevalence.list_minutes(session, window))
            decoders = prevalence.list_decoders(session, window)
            concepts = {concept for group in groups for concept in group.concepts} | set(
                self._plan.concepts
            )
            found = concept_prevalences(groups, retained, concepts)
            # The same requests, so the same readers and concepts in the same order.
            calibrated = concept_prevalences(
                prevalence.list_groups(session, window, status=FlagStatus.CALIBRATED), retained, concepts
            )
            samples += [
                _sample(model.name, decoders[one.reader.decoder_id].digest, one, known.lower_anytime)
                for one, known in zip(found, calibrated, strict=True)
            ]
        return samples

    def _run(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            self.refresh(dt.datetime.now(dt.UTC))
            took = time.monotonic() - began
            self._stop.wait(max(self._plan.every_seconds, took / _LARGEST_SHARE_OF_TIME))


def _sample(model: str, digest: str, found: ConceptPrevalence, calibrated_lower: float) -> PrevalenceSample:
    return PrevalenceSample(
        model=model,
        concept=found.concept,
        layer=found.reader.layer,
        decoder=digest[:12],
        estimate=found.estimate or 0.0,
        lower=found.lower_anytime,
        calibrated_lower=calibrated_lower,
        requests=found.requests,
    )


def window_start(now: dt.datetime, hours: int) -> dt.datetime:
    """Return the start of the window that ends now: `hours` to twice as many before.

    The bound holds at all looks with one start, so the start stays where it is and moves once in `hours`.
    """
    length = dt.timedelta(hours=hours)
    return now - (now - _EPOCH) % length - length
