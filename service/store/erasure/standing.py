"""What stands on explanations that are to go: flags, incidents, tests. It goes with the last of them.

The unit is a flag's `Subject`, one capture at one layer as one decoder read it. Where others of its
explanations stay, its flags are counted again, without those that go, and its incident stays as it was
told: what somebody decided by must not change, and its findings have figures and no text.
"""

import datetime as dt
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from service.evidence.payloads import Kind
from service.evidence.row import Row
from service.store.base import values_of
from service.store.evidence.rows import explanation_row, list_matches, row_of
from service.store.tables import (
    ConceptMatch,
    Explanation,
    Flag,
    Incident,
    IncidentEvent,
    RequestTest,
    Sample,
)
from service.store.write.flags import Subject

Parted = type[Sample] | type[Flag] | type[Incident] | type[RequestTest]


class Span(NamedTuple):
    """When the samples were captured, both inclusive: tells the database where not to look."""

    first: dt.datetime
    last: dt.datetime


@dataclass(slots=True)
class Standing:
    """One subject: what goes of it, and what is kept with other figures."""

    subject: Subject
    is_whole: bool = True
    """Whether nothing of it stays."""
    explanations: list[Row] = field(default_factory=list)
    samples: list[uuid.UUID] = field(default_factory=list)
    flags: list[Row] = field(default_factory=list)
    changed_flags: list[tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=list)
    """Flags as they are stored, each with what its figures become."""
    incidents: list[uuid.UUID] = field(default_factory=list)
    events: list[Row] = field(default_factory=list)
    tests: list[uuid.UUID] = field(default_factory=list)

    def commitments(self) -> Iterator[bytes]:
        """Yield the commitments to every row that goes."""
        for row in (*self.explanations, *self.flags, *self.events):
            yield from row.commitments

    def named(self) -> Iterator[uuid.UUID]:
        """Yield what goes and an entry of the access log may name, but for the capture."""
        yield from (uuid.UUID(row.key) for row in self.explanations)
        yield from self.incidents

    def gone(self) -> Iterator[uuid.UUID]:
        """Yield the ids of all rows that go."""
        yield from self.named()
        yield from self.samples
        yield from (uuid.UUID(row.key) for row in (*self.flags, *self.events))


def list_subjects(
    session: Session, tenant: uuid.UUID, ids: Collection[uuid.UUID], within: Span | None
) -> list[Subject]:
    """Return the subjects of a tenant's explanations."""
    query = (
        select(Sample.model_id, Explanation.decoder_id, Sample.capture_id, Sample.request_id, Sample.layer)
        .join(Explanation, Explanation.sample_id == Sample.id)
        .where(*_of_explanations(tenant, ids, within))
        .distinct()
    )
    return sorted((Subject(*row) for row in session.execute(query)), key=str)


def _of_explanations(
    tenant: uuid.UUID, ids: Collection[uuid.UUID], within: Span | None
) -> list[ColumnElement[bool]]:
    wanted = [Explanation.id.in_(ids), Explanation.tenant_id == tenant]
    if within is not None:
        wanted += [Explanation.captured_at.between(*within), Sample.captured_at.between(*within)]
    return wanted


def read_standing(
    session: Session,
    tenant: uuid.UUID,
    subjects: Sequence[Subject],
    ids: Collection[uuid.UUID],
    within: Span | None,
) -> list[Standing]:
    """Return what goes with these explanations of the subjects. The caller holds their captures' locks."""
    found = {subject: Standing(subject) for subject in subjects}
    if not found:
        return []
    _add_explanations(session, tenant, found, ids, within)
    _add_what_stays(session, tenant, found, ids)
    for flag in session.scalars(_fresh(select(Flag).where(of_subjects(Flag, tenant, found)))):
        if (standing := found.get(_subject(flag))) is not None:
            _add_flag(standing, flag)
    _settle_flags(session, tenant, found, ids)
    whole = {subject: one for subject, one in found.items() if one.is_whole}
    incidents: dict[uuid.UUID, Standing] = {}
    # Triage changes them and does not know the capture's lock.
    query = (
        select(Incident).where(of_subjects(Incident, tenant, whole)).order_by(Incident.id).with_for_update()
    )
    for incident in session.scalars(_fresh(query)):
        if (standing := whole.get(_subject(incident))) is not None:
            standing.incidents.append(incident.id)
            incidents[incident.id] = standing
    events = select(IncidentEvent).where(IncidentEvent.incident_id.in_(incidents))
    for event in session.scalars(_fresh(events)):
        incidents[event.incident_id].events.append(row_of(Kind.INCIDENT_EVENT, values_of(event), at="at"))
    for test in session.scalars(_fresh(select(RequestTest).where(of_subjects(RequestTest, tenant, whole)))):
        if (standing := whole.get(_subject(test))) is not None:
            standing.tests.append(test.id)
    return list(found.values())


def _add_explanations(
    session: Session,
    tenant: uuid.UUID,
    found: Mapping[Subject, Standing],
    ids: Collection[uuid.UUID],
    within: Span | None,
) -> None:
    query = (
        select(Explanation, Sample)
        .join(Sample, Sample.id == Explanation.sample_id)
        .where(*_of_explanations(tenant, ids, within))
    )
    rows = session.execute(_fresh(query)).all()
    matches = list_matches(session, [explanation for explanation, _ in rows], tenant)
    for explanation, sample in rows:
        subject = Subject(
            sample.model_id, explanation.decoder_id, sample.capture_id, sample.request_id, sample.layer
        )
        if (standing := found.get(subject)) is not None:
            standing.explanations.append(
                explanation_row(explanation, sample, matches.get(explanation.id, ()))
            )
            standing.samples.append(sample.id)


def _add_what_stays(
    session: Session, tenant: uuid.UUID, found: Mapping[Subject, Standing], ids: Collection[uuid.UUID]
) -> None:
    """Mark the subjects of which explanations stay."""
    unit = (Sample.model_id, Explanation.decoder_id, Sample.capture_id, Sample.request_id, Sample.layer)
    query = (
        select(*unit)
        .join(Explanation, Explanation.sample_id == Sample.id)
        .where(of_subjects(Sample, tenant, found), Explanation.id.not_in(ids))
        .distinct()
    )
    for row in session.execute(query):
        if (standing := found.get(Subject(*row))) is not None:
            standing.is_whole = False


def _add_flag(standing: Standing, flag: Flag) -> None:
    values = values_of(flag)
    if standing.is_whole:
        standing.flags.append(row_of(Kind.FLAG, values))
    else:
        standing.changed_flags.append((values, {}))


class _Left(NamedTuple):
    positions: int
    first: dt.datetime
    last: dt.datetime


def _settle_flags(
    session: Session, tenant: uuid.UUID, found: Mapping[Subject, Standing], ids: Collection[uuid.UUID]
) -> None:
    """Count anew what is left to the flags that stay; one that nothing is left to goes."""
    partly = {subject: one for subject, one in found.items() if one.changed_flags}
    if not partly:
        return
    unit = (Sample.model_id, Explanation.decoder_id, Sample.capture_id, Sample.request_id, Sample.layer)
    stays = (of_subjects(Sample, tenant, partly), Explanation.id.not_in(ids), Explanation.verified)
    verified = {
        Subject(*row[:5]): row[5]
        for row in session.execute(
            select(*unit, func.count()).join(Explanation, Explanation.sample_id == Sample.id).where(*stays)
            .group_by(*unit)
        )
    }  # fmt: skip
    matched = {
        (Subject(*row[:5]), row[5]): _Left(*row[6:])
        for row in session.execute(
            select(
                *unit, ConceptMatch.concept, func.count(Sample.position.distinct()),
                func.min(Sample.captured_at), func.max(Sample.captured_at),
            )
            .join(Explanation, Explanation.sample_id == Sample.id)
            .join(ConceptMatch, ConceptMatch.explanation_id == Explanation.id)
            .where(*stays)
            .group_by(*unit, ConceptMatch.concept)
        )
    }  # fmt: skip
    for subject, standing in partly.items():
        kept = []
        for values, _ in standing.changed_flags:
            left = matched.get((subject, values["concept"]))
            if left is None:
                standing.flags.append(row_of(Kind.FLAG, values))
            else:
                # Matches by a definition or threshold of before count here and did not then.
                positions = min(left.positions, values["positions_matched"])
                kept.append((values, _figures(left, positions, verified[subject])))
        standing.changed_flags = kept


def _figures(left: _Left, positions: int, verified: int) -> dict[str, Any]:
    return {
        "positions_matched": positions,
        "positions_verified": verified,
        "first_captured_at": left.first,
        "last_captured_at": left.last,
    }


def _fresh(query: Any) -> Any:
    """Read rows as they are now: the session may know them from before the lock."""
    return query.execution_options(populate_existing=True)


def of_subjects(table: Parted, tenant: uuid.UUID, subjects: Iterable[Subject]) -> ColumnElement[bool]:
    """Return a condition that holds for the subjects' rows, and perhaps for others of their requests."""
    listed = list(subjects)
    captures = [one.capture_id for one in listed if one.capture_id is not None]
    requests = [one.request_id for one in listed if one.capture_id is None]
    is_one: ColumnElement[bool] = table.capture_id.in_(captures)
    if requests:
        is_one = or_(is_one, and_(table.capture_id.is_(None), table.request_id.in_(requests)))
    return and_(table.tenant_id == tenant, is_one)


def _subject(row: Flag | Incident | RequestTest) -> Subject:
    return Subject(row.model_id, row.decoder_id, row.capture_id, row.request_id, row.layer)
