"""The workers' store write as benchmarks time it: batches of 16 readings of four captures, no flags."""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final
from unittest import mock

from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from service.store.engine import create_engine, session_factory
from service.store.identity import DEFAULT_TENANT, tenant_id
from service.store.tables import Sample
from service.store.tenants.sessions import session_of
from service.store.write import decoders, readings
from service.store.write.evidence import Verdicts

BATCH: Final = 16  # readings, or commitments, of one transaction
_LAYER: Final = 20
_CAPTURES_OF_BATCH: Final = 4
_NO_VERDICTS: Final = Verdicts(decide=lambda _: (), concepts_digest="")


@contextmanager
def sessions_of(url: str) -> Iterator[sessionmaker[Session]]:
    """Sessions over one connection with the URL's login."""
    engine: Engine = create_engine(url, pool_size=1)
    try:
        yield session_factory(engine)
    finally:
        engine.dispose()


@contextmanager
def no_log() -> Iterator[None]:
    """Let the store write commit to nothing."""
    with (
        mock.patch.object(readings, "append"),
        mock.patch.object(readings, "add_pending"),
        mock.patch.object(readings, "explanation_payload"),
    ):
        yield


def register(sessions: sessionmaker[Session]) -> tuple[uuid.UUID, uuid.UUID]:
    """Return the ids of model and decoder, which are stored unless they are there."""
    decoder = decoders.NewDecoder(
        model="bench",
        d_model=576,
        name="bench",
        digest="bench",
        layer=_LAYER,
        fve_baseline=0.5,
        shuffled_fve_p95=0.02,
        calibration_n=512,
        card={},
    )
    with sessions.begin() as session:
        return decoders.register_decoder(session, decoder)


def store(sessions: sessionmaker[Session], model_id: uuid.UUID, decoder_id: uuid.UUID) -> float:
    """Store a batch and return the seconds that took."""
    batch = _batch()
    started = time.perf_counter()
    with session_of(sessions, DEFAULT_TENANT) as session:
        readings.store_batch(
            session,
            batch,
            model_id=model_id,
            decoder_id=decoder_id,
            verdicts=_NO_VERDICTS,
            tenant=tenant_id(DEFAULT_TENANT),
        )
        session.commit()
    return time.perf_counter() - started


def _batch() -> list[readings.NewReading]:
    captures = [uuid.uuid4() for _ in range(_CAPTURES_OF_BATCH)]
    return [_reading(captures[number % _CAPTURES_OF_BATCH], number) for number in range(BATCH)]


def _reading(capture: uuid.UUID, position: int) -> readings.NewReading:
    sample = Sample(
        id=uuid.uuid4(),
        capture_id=capture,
        request_id=f"chatcmpl-{capture.hex}",
        layer=_LAYER,
        position=position,
        token_id=314,
        token_text=" word",  # noqa: S106
        phase="decode",
        norm=241.3,
        stratum="uniform",
        inclusion_probability=0.25,
        baseline_probability=0.125,
        reason="decode",
        screen_scores={"anomaly": 31.7},
        captured_at=datetime.now(UTC),
    )
    return readings.NewReading(
        sample=sample,
        request_names=[capture.hex],
        text='An answer about food (breakfast). Expects "eggs". Reads " two fresh"',
        well_formed=True,
        cosine=0.87,
        fve=0.61,
        fve_beyond_token=0.31,
        position_class="answer",
        verified=True,
        claims={
            "register": "an answer",
            "area": "food",
            "topic": "breakfast",
            "kinds": [],
            "expects": None,
            "expects_agreement": None,
            "areas": {"food": 0.8},
            "kind_scores": {},
        },
        candidates=4,
        margin=0.02,
        anomaly_score=31.7,
        anomaly_p_value=0.013,
        anomaly_calibration_n=512,
        matches=[readings.NewMatch("food", "regex", 1.0)] if position % _CAPTURES_OF_BATCH == 0 else [],
    )
