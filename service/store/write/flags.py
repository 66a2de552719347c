"""Recompute a request's flags after new readings. The caller commits."""

import datetime as dt
import math
import uuid
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any, Final, NamedTuple

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service.evidence import entry
from service.evidence.payloads import Kind, payload_of
from service.incidents.lifecycle import FindingKind
from service.store import identity
from service.store.base import values_of
from service.store.days import is_match_of_explanation, is_sample_of_explanation, near_capture
from service.store.tables import ConceptMatch, Explanation, Flag, FlagStatus, Sample
from service.store.write.evidence import Decision, Evidence, Finding, Sighting, Verdicts

FIGURES: Final = (
    "positions_matched",
    "positions_required",
    "positions_verified",
    "status",
    "false_positive_rate",
    "false_positive_rate_upper",
    "calibration_requests",
    "calibration_digest",
    "concepts_digest",
    "concept_version",
)
"""Columns of a flag that an incident keeps as they were when the flag was found."""


class RaisedFlag(NamedTuple):
    """A flag that this transaction inserted."""

    concept: str
    severity: str
    status: str


class RefreshedFlags(NamedTuple):
    """The flags of one capture after new readings."""

    raised: list[RaisedFlag]
    findings: list[Finding]
    """Every flag that the evidence suffices for, new or not."""
    committed: list[bytes]
    """What the log has to take up: a commitment to each flag that is new or has changed."""


class Subject(NamedTuple):
    """The unit that flags belong to: one capture at one layer, read by one decoder."""

    model_id: uuid.UUID
    decoder_id: uuid.UUID
    capture_id: uuid.UUID | None
    """None for samples from before captures had an identity; the request id then stands in."""
    request_id: str
    layer: int

    @property
    def capture(self) -> str:
        """An identifier of the capture, unique within the model."""
        return self.request_id if self.capture_id is None else self.capture_id.hex


def refresh_flags(
    session: Session, subject: Subject, verdicts: Verdicts, first: dt.datetime, last: dt.datetime
) -> RefreshedFlags:
    """Recompute the evidence, raise or update the flags that ``verdicts`` decides on.

    Rows of the capture were captured from ``first`` to ``last``; its others lie near. The caller must hold
    the capture's lock: two workers that count at the same time would each miss the other's positions.
    """
    refreshed = RefreshedFlags([], [], [])
    rows = _read_of(subject, first, last)
    of_matches = near_capture(subject.capture_id, (ConceptMatch.captured_at,), first, last)
    read = _list_read(session, rows)
    evidence = Evidence(
        sightings=_list_sightings(session, [*rows, *of_matches], verdicts),
        # What only the screen chose closes the list: a row of the baseline that comes after it could make
        # a lead calibrated.
        positions_read=[row.position for row in takewhile(lambda row: row.is_baseline, read)],
        positions_verified=sum(row.is_verified for row in read),
    )
    for decided in verdicts.decide(evidence):
        row = {
            "id": identity.flag_id(
                subject.model_id, subject.capture, subject.layer, decided.concept, subject.decoder_id
            ),
            **subject._asdict(),
            **_values_of(decided, verdicts),
        }
        is_new, commitment = _upsert_flag(session, row)
        if is_new:
            refreshed.raised.append(RaisedFlag(decided.concept, decided.severity, row["status"]))
        if commitment is not None:
            refreshed.committed.append(commitment)
        refreshed.findings.append(_finding(decided, row))
    return refreshed


def _finding(decided: Decision, row: Mapping[str, Any]) -> Finding:
    return Finding(
        kind=FindingKind.FLAG,
        concept=decided.concept,
        severity=decided.severity,
        first_captured_at=decided.first_captured_at,
        last_captured_at=decided.last_captured_at,
        figures={name: row[name] for name in FIGURES},
    )


def _values_of(decided: Decision, verdicts: Verdicts) -> dict[str, Any]:
    """Return the columns that a decision fills; a lead names no calibration and no rate."""
    values = decided._asdict()
    rate = values.pop("calibrated")
    del values["rule_is_calibrated"]
    version = verdicts.concept_versions.get(decided.concept)
    return values | {
        "concepts_digest": verdicts.concepts_digest,
        "concept_version": None if version is None else version.version,
        "concept_digest": None if version is None else version.digest,
        "status": FlagStatus.LEAD if rate is None else FlagStatus.CALIBRATED,
        "false_positive_rate": None if rate is None else rate.rate,
        "false_positive_rate_upper": None if rate is None else rate.upper_limit,
        "calibration_requests": None if rate is None else rate.requests,
        "calibration_digest": None if rate is None else verdicts.calibration_digest,
    }


class _Read(NamedTuple):
    """A position that was read."""

    position: int
    is_verified: bool
    is_baseline: bool
    """Whether chance chose it; the screen chooses rows for what is in them."""


def _list_read(session: Session, rows: Sequence[Any]) -> list[_Read]:
    """Return every position that was read, in the order in which they were stored.

    That order is fixed: `service.store.write.readings` gives later explanations of a capture later times.
    """
    query = (
        select(Sample.position, Explanation.verified, Sample.baseline_probability > 0)
        .join(Explanation, is_sample_of_explanation())
        .where(*rows)
        .order_by(Explanation.created_at, Sample.position)
    )
    return [_Read(*row) for row in session.execute(query)]


def _list_sightings(session: Session, rows: Sequence[Any], verdicts: Verdicts) -> list[Sighting]:
    query = (
        select(
            ConceptMatch.concept,
            Sample.position,
            Sample.captured_at,
            ConceptMatch.score,
            ConceptMatch.concept_digest,
        )
        .join(Explanation, is_match_of_explanation())
        .join(Sample, is_sample_of_explanation())
        .where(*rows, Explanation.verified)
    )
    return [
        Sighting(concept, position, captured_at)
        for concept, position, captured_at, score, digest in session.execute(query)
        if _is_in_force(verdicts, concept, score, digest)
    ]


def _is_in_force(verdicts: Verdicts, concept: str, score: float, digest: str | None) -> bool:
    """Return whether the match is one by the definition and the threshold of now."""
    version = verdicts.concept_versions.get(concept)
    # Of matches from before the digest was kept nobody knows by which definition they were made.
    if digest is not None and version is not None and digest != version.digest:
        return False
    # Matches that are certain have the highest score, which no threshold is above.
    return score >= verdicts.thresholds.get(concept, -math.inf)


def _read_of(subject: Subject, first: dt.datetime, last: dt.datetime) -> tuple[Any, ...]:
    return (
        *near_capture(subject.capture_id, (Sample.captured_at, Explanation.captured_at), first, last),
        Sample.model_id == subject.model_id,
        Sample.capture_id == subject.capture_id,  # None becomes IS NULL
        Sample.request_id == subject.request_id,
        Sample.layer == subject.layer,
        Explanation.decoder_id == subject.decoder_id,
    )


_CHANGES: Final = ("positions_matched", "positions_verified", "first_captured_at", "last_captured_at")
"""Severity, rule, status and digests record why the flag was raised, so updates do not change them. No lead
would become calibrated: the positions that decide it were all read before those that do not."""


def _upsert_flag(session: Session, row: dict[str, Any]) -> tuple[bool, bytes | None]:
    """Insert or update the flag; return whether it is new, and the commitment to it if it is or changed."""
    salt = entry.new_salt()
    new = insert(Flag).values(row | {"log_salt": salt}).on_conflict_do_nothing().returning(Flag.created_at)
    created_at = session.execute(new).scalar_one_or_none()
    if created_at is not None:
        return True, entry.commit(salt, payload_of(Kind.FLAG, row | {"created_at": created_at}))
    query = select(Flag).where(Flag.id == row["id"]).execution_options(populate_existing=True)
    stored = values_of(session.scalars(query).one())
    return False, change_flag(session, stored, {name: row[name] for name in _CHANGES})


def change_flag(session: Session, stored: Mapping[str, Any], values: Mapping[str, Any]) -> bytes | None:
    """Give a stored flag these values; return the commitment to it if one of them is another one.

    The caller must hold the capture's lock.
    """
    changes = {name: value for name, value in values.items() if value != stored[name]}
    commitment = None
    if changes:
        salt, trail = entry.new_salt(), _trail(stored)
        commitment = entry.commit(salt, payload_of(Kind.FLAG, {**stored, **changes}, trail))
        changes |= {"log_salt": salt, "log_trail": trail}
    changed = update(Flag).where(Flag.id == stored["id"])
    session.execute(changed.values(changes | {"updated_at": func.now()}))
    return commitment


def _trail(stored: Mapping[str, Any]) -> list[bytes]:
    """Return the commitments to the flag's states up to this one; a flag of before the log has none."""
    trail: list[bytes] = stored["log_trail"] or []
    if stored["log_salt"] is None:
        return trail
    return [*trail, entry.commit(stored["log_salt"], payload_of(Kind.FLAG, stored, trail))]
