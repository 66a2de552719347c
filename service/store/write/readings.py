"""Store a worker's readings idempotently within one transaction. The caller commits.

Every id is derived from the content that it identifies, so a redelivered batch inserts nothing.
"""

import datetime as dt
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service.evidence import entry
from service.evidence.payloads import Kind, explanation_payload
from service.store import identity
from service.store.base import values_of
from service.store.configuration.write import version_ids
from service.store.days import between, near
from service.store.evidence.append import add_pending, append
from service.store.tables import ConceptMatch, Explanation, Sample
from service.store.write import incident_repair, incidents, names
from service.store.write.evidence import ConceptVersion, Verdicts
from service.store.write.flags import RaisedFlag, Subject, refresh_flags
from subtext_sidecar.contract.configuration import Kind as ConfigurationKind


class NewMatch(NamedTuple):
    """A match of one concept by an explanation."""

    concept: str
    matcher: str
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NewReading:
    """One sample and its reading."""

    sample: Sample
    """The row to store, attached to no session; `store_batch` fills in its model id."""
    request_names: Sequence[str]
    """What its request can be looked up by besides the sample's request id."""
    text: str
    well_formed: bool
    cosine: float
    fve: float
    fve_beyond_token: float | None
    position_class: str
    verified: bool
    claims: Mapping[str, Any] | None
    """The explanation's claims as JSON; `service.readings` lists the keys."""
    candidates: int
    margin: float | None
    anomaly_score: float | None
    anomaly_p_value: float | None
    anomaly_calibration_n: int | None
    matches: Sequence[NewMatch]
    engine_configuration: str | None = None
    """Digest of what the engine ran that took the sample; None: it did not say."""


class StoredBatch(NamedTuple):
    """The ids of new explanations, the flags that they raised, and what became of incidents."""

    explanation_ids: frozenset[uuid.UUID]
    flags: list[RaisedFlag]
    incidents: list[incidents.IncidentChange]
    incident_errors: list[str]
    """Types of the errors that kept incidents from being written; `incident_repair` finds their flags."""


def list_known_explanations(
    session: Session, samples: Mapping[uuid.UUID, dt.datetime], decoder_id: uuid.UUID
) -> dict[uuid.UUID, dt.datetime]:
    """Return the samples that this decoder has already explained, with their capture times.

    ``samples`` is by id, with the time at which each was captured now: an engine may compute a position
    twice.
    """
    if not samples:
        return {}
    query = select(Explanation.sample_id, Explanation.captured_at).where(
        Explanation.decoder_id == decoder_id,
        Explanation.sample_id.in_(list(samples)),
        near(Explanation.captured_at, min(samples.values()), max(samples.values())),
    )
    return {row.sample_id: row.captured_at for row in session.execute(query)}


def store_batch(
    session: Session,
    readings: Sequence[NewReading],
    *,
    model_id: uuid.UUID,
    decoder_id: uuid.UUID,
    verdicts: Verdicts,
    configuration_id: int | None = None,
    tenant: uuid.UUID | None = None,
) -> StoredBatch:
    """Insert the readings and bring the flags of their captures up to date.

    ``configuration_id`` is of the version that the worker runs. ``tenant`` is the one that the transaction
    is about, whose are model and decoder; None: the default one.


    1. Samples and the names of their captures, then explanations, then concept matches, each ON CONFLICT
       DO NOTHING. Of the explanations of one capture, what is stored later has a later `created_at`, also
       within a batch: calibrated flags look at the positions that were read first. The log commits to each.
    2. For each capture of the batch, recount the verified positions and raise or update the flags.
    3. Open the capture's incident for what was found, or let it grow; in a savepoint, for nothing that is
       wrong there may cost a reading or a flag.

    Each capture is locked first, so that two workers with positions of one capture count one after the
    other and neither misses the other's positions.
    """
    if not readings:
        return StoredBatch(frozenset(), [], [], [])
    subjects = sorted({_subject(new.sample, model_id, decoder_id) for new in readings}, key=str)
    lock_captures(session, subjects)
    engines = _engine_versions(session, readings)
    times = _times_of(session, readings)
    samples = [
        values_of(new.sample)
        | {
            "model_id": model_id,
            "configuration_id": engines.get(new.engine_configuration),
            "captured_at": times[new.sample.id],
        }
        for new in readings
    ]
    new_samples = set(
        session.execute(insert(Sample).on_conflict_do_nothing().returning(Sample.id), samples).scalars()
    )
    names.add_names(
        session, [names.NamedSample(new.sample, new.request_names) for new in readings], model_id, tenant
    )
    rows = _insert_explanations(session, readings, decoder_id, configuration_id, times)
    matches = _insert_matches(session, readings, decoder_id, rows, verdicts.concept_versions)
    _log_explanations(session, rows, _stored_samples(session, samples, new_samples, rows), matches)
    stored = StoredBatch(frozenset(rows), [], [], [])
    found = []
    committed = []
    for subject in subjects:
        refreshed = refresh_flags(session, subject, verdicts, min(times.values()), max(times.values()))
        stored.flags.extend(refreshed.raised)
        committed.extend(refreshed.committed)
        found.append(incident_repair.Unrecorded(subject, refreshed.findings))
    add_pending(session, Kind.FLAG, committed)
    for recorded in incident_repair.try_to_record(session, found, anomaly_p_value=verdicts.anomaly_p_value):
        stored.incidents.extend(recorded.changes)
        if recorded.error is not None:
            stored.incident_errors.append(recorded.error)
    return stored


def _subject(sample: Sample, model_id: uuid.UUID, decoder_id: uuid.UUID) -> Subject:
    return Subject(model_id, decoder_id, sample.capture_id, sample.request_id, sample.layer)


def lock_captures(session: Session, subjects: Sequence[Subject]) -> None:
    """Lock the subjects' captures until the transaction ends; a transaction may do so once."""
    # Every worker takes the locks in the same order, so that no two workers deadlock.
    names = {f"{subject.model_id}/{subject.capture}" for subject in subjects}
    keys = sorted({identity.model_id(name).int & (2**63 - 1) for name in names})
    for key in keys:
        session.execute(select(func.pg_advisory_xact_lock(key)))


def _engine_versions(session: Session, readings: Sequence[NewReading]) -> dict[str | None, int]:
    """Return the ids of the engines' versions by digest: what they hold may be told later."""
    digests = {new.engine_configuration for new in readings if new.engine_configuration is not None}
    ids = version_ids(session, {(ConfigurationKind.PLUGIN, digest) for digest in digests})
    return {digest: id_ for (_, digest), id_ in ids.items()}


def _times_of(session: Session, readings: Sequence[NewReading]) -> dict[uuid.UUID, dt.datetime]:
    """Return by sample the time that it is stored with: the first one, of a position computed twice.

    The time is part of a row's key, so a second one would be a second row. The caller holds the captures'
    locks, so nobody stores the same meanwhile.
    """
    own = [new.sample for new in readings]
    captured = [sample.captured_at for sample in own]
    stored = select(Sample.id, Sample.captured_at).where(
        Sample.id.in_([sample.id for sample in own]), near(Sample.captured_at, min(captured), max(captured))
    )
    first = {sample.id: sample.captured_at for sample in reversed(own)}
    return first | {row.id: row.captured_at for row in session.execute(stored)}


def _insert_explanations(
    session: Session,
    readings: Sequence[NewReading],
    decoder_id: uuid.UUID,
    configuration_id: int | None,
    times: Mapping[uuid.UUID, dt.datetime],
) -> dict[uuid.UUID, dict[str, Any]]:
    """Insert them and return the rows of those that are new, by id."""
    # The transaction's own time is from before it held the lock, and the same for all rows.
    now = session.execute(select(func.clock_timestamp())).scalar_one()
    rows = [
        {
            "id": identity.explanation_id(new.sample.id, decoder_id),
            "sample_id": new.sample.id,
            "decoder_id": decoder_id,
            "captured_at": times[new.sample.id],
            "text": new.text,
            "well_formed": new.well_formed,
            "cosine": new.cosine,
            "fve": new.fve,
            "fve_beyond_token": new.fve_beyond_token,
            "position_class": new.position_class,
            "verified": new.verified,
            "claims": None if new.claims is None else dict(new.claims),
            "candidates": new.candidates,
            "margin": new.margin,
            "anomaly_score": new.anomaly_score,
            "anomaly_p_value": new.anomaly_p_value,
            "anomaly_calibration_n": new.anomaly_calibration_n,
            "configuration_id": configuration_id,
            "created_at": now + place * dt.timedelta(microseconds=1),
            "log_salt": entry.new_salt(),
        }
        for place, new in enumerate(readings)
    ]
    statement = insert(Explanation).on_conflict_do_nothing().returning(Explanation.id)
    new = set(session.execute(statement, rows).scalars())
    # Of one sample twice in a batch the first is stored.
    return {row["id"]: row for row in reversed(rows) if row["id"] in new}


def _log_explanations(
    session: Session,
    rows: Mapping[uuid.UUID, Mapping[str, Any]],
    samples: Mapping[uuid.UUID, Mapping[str, Any]],
    matches: Mapping[uuid.UUID, Sequence[Mapping[str, Any]]],
) -> None:
    payloads = [
        explanation_payload(row, samples[row["sample_id"]], matches.get(key, ()))
        for key, row in rows.items()
    ]
    append(session, Kind.EXPLANATION, payloads, [row["log_salt"] for row in rows.values()])


def _stored_samples(
    session: Session,
    samples: Sequence[dict[str, Any]],
    new: Collection[uuid.UUID],
    rows: Mapping[uuid.UUID, Mapping[str, Any]],
) -> dict[uuid.UUID, dict[str, Any]]:
    """Return the samples as they are stored: another decoder may have had them before."""
    stored = {sample["id"]: sample for sample in reversed(samples) if sample["id"] in new}
    missing = {row["sample_id"]: row["captured_at"] for row in rows.values()}
    missing = {key: at for key, at in missing.items() if key not in stored}
    if missing:
        query = select(Sample).where(
            Sample.id.in_(list(missing)),
            between(Sample.captured_at, min(missing.values()), max(missing.values())),
        )
        stored |= {one.id: values_of(one) for one in session.scalars(query)}
    return stored


def _insert_matches(
    session: Session,
    readings: Sequence[NewReading],
    decoder_id: uuid.UUID,
    explanations: Mapping[uuid.UUID, Mapping[str, Any]],
    definitions: Mapping[str, ConceptVersion],
) -> dict[uuid.UUID, list[dict[str, Any]]]:
    """Insert the matches of new explanations and return them, by explanation."""
    digests = {concept: version.digest for concept, version in definitions.items()}
    rows: dict[tuple[uuid.UUID, str], dict[str, Any]] = {}
    for new in readings:
        explanation_id = identity.explanation_id(new.sample.id, decoder_id)
        if explanation_id in explanations:
            for match in new.matches:
                row = {
                    "explanation_id": explanation_id,
                    "captured_at": explanations[explanation_id]["captured_at"],
                    "concept_digest": digests.get(match.concept),
                    **match._asdict(),
                }
                rows.setdefault((explanation_id, match.concept), row)
    if rows:
        session.execute(insert(ConceptMatch).on_conflict_do_nothing(), list(rows.values()))
    matches: dict[uuid.UUID, list[dict[str, Any]]] = {}
    for row in rows.values():
        matches.setdefault(row["explanation_id"], []).append(row)
    return matches
