"""Rows as a worker stores them, with their entries in the log, and a log that is held against its store."""

import datetime as dt
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from sqlalchemy.orm import Session, sessionmaker

from service.evidence import folder, note
from service.evidence.verify import Report, origin_of, verify
from service.sequencer.sequencer import Sequencer
from service.store.evidence.log import StoredLog
from service.store.tables import Sample
from service.store.tenants import scope
from service.store.write import decoders
from service.store.write.evidence import Decision, Evidence, Verdicts
from service.store.write.readings import NewMatch, NewReading, store_batch

START: Final = dt.datetime(2026, 11, 23, 5, 0, tzinfo=dt.UTC)
SIGNER: Final = note.generate("subtext.example")
CONCEPT: Final = "deception"
_DECODER: Final = decoders.NewDecoder(
    model="m", d_model=8, name="m-l1", digest="d" * 64, layer=1, fve_baseline=0.5, shuffled_fve_p95=0.1,
    calibration_n=9, card={},
)  # fmt: skip


class Planted(NamedTuple):
    """One request that was audited."""

    request_id: str
    capture_id: uuid.UUID
    trace_id: str
    samples: Sequence[uuid.UUID]


def plant(
    session: Session,
    request_id: str,
    *,
    positions: int = 3,
    at: dt.datetime = START,
    trace_id: str | None = None,
    subject: str | None = None,
    decoder: decoders.NewDecoder = _DECODER,
    tenant: uuid.UUID | None = None,
) -> Planted:
    """Store a request's readings with a flag and its incident, as a worker does."""
    model_id, decoder_id = decoders.register_decoder(session, decoder)
    capture_id, trace_id = uuid.uuid4(), trace_id or uuid.uuid4().hex
    readings = [
        NewReading(
            sample=Sample(
                id=uuid.uuid4(), capture_id=capture_id, request_id=request_id, layer=1, position=position,
                token_id=5, token_text=f"token of {request_id}", phase="decode", norm=3.0,
                stratum="uniform", trace_id=trace_id, span_id=None, role=None, inclusion_probability=0.5,
                baseline_probability=0.5, reason="decode", screen_scores={},
                captured_at=at + dt.timedelta(milliseconds=position), subject=subject,
            ),
            request_names=[f"name-of-{request_id}"], text=f"the reading of {request_id} at {position}",
            well_formed=True, cosine=0.9, fve=0.5, fve_beyond_token=None, position_class="answer",
            verified=True, claims=None, candidates=1, margin=None, anomaly_score=None, anomaly_p_value=None,
            anomaly_calibration_n=None, matches=[NewMatch(CONCEPT, "regex", 1.0)],
        )
        for position in range(positions)
    ]  # fmt: skip
    store_batch(
        session,
        readings,
        model_id=model_id,
        decoder_id=decoder_id,
        verdicts=Verdicts(decide=_decide, concepts_digest="c" * 64),
        tenant=tenant,
    )
    return Planted(request_id, capture_id, trace_id, [one.sample.id for one in readings])


def _decide(evidence: Evidence) -> list[Decision]:
    """Flag the concept from two positions on."""
    found = {one.position for one in evidence.sightings}
    times = [one.captured_at for one in evidence.sightings]
    if len(found) < 2:
        return []
    return [
        Decision(CONCEPT, "warning", len(found), 2, evidence.positions_verified, min(times), max(times))
    ]


class Log:
    """A sequencer that works when it is told to, and the verifier behind it."""

    def __init__(self, sessions: sessionmaker[Session], checkpoints: Path) -> None:
        self._sessions = sessions
        self._folder = checkpoints
        self._sequencer = Sequencer(sessions, SIGNER, checkpoints)

    def sign(self) -> None:
        """Give all that waits its place, and sign."""
        while self._sequencer.sequence().batches:
            pass
        self._sequencer.sign()

    def report(self, tenant: uuid.UUID = scope.DEFAULT_ID) -> Report:
        """Hold the log against the store as it is now."""
        notes = folder.read(self._folder, tenant).whole
        with self._sessions() as session:
            session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            origin = origin_of(SIGNER.name, tenant)
            return verify(StoredLog(session, tenant), notes, SIGNER.verifier, origin)
