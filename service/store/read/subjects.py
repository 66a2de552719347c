"""Everything that is stored of one data subject, by subject key: a page follows the person's samples."""

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from sqlalchemy import Uuid, any_, cast, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from service.evidence.entry import commit
from service.evidence.payloads import explanation_payload
from service.store.access.tables import AccessEntry, AccessSubject, Action
from service.store.base import values_of
from service.store.evidence.tables import LogLeaf
from service.store.identity import capture_name
from service.store.read import explanations, flags
from service.store.read.page import Page, Position, older_than
from service.store.read.requests import SampleView
from service.store.tables import ConceptMatch, Incident, Model, Sample

LISTED_READS: Final = 200
"""More reads of one page's captures are not listed."""


class Capture(NamedTuple):
    """One request of the person's, with those of its samples that stand on this page."""

    capture_id: uuid.UUID | None
    request_id: str
    model: str
    samples: Sequence[SampleView]
    """Newest first."""
    explanations: Sequence[explanations.View]
    flags: Sequence[flags.View]
    incidents: Sequence[uuid.UUID]


class View(NamedTuple):
    """One page of what is stored of a data subject."""

    captures: Page[Capture]
    places: Mapping[uuid.UUID, int]
    """Of explanations, by id: the place of their entry in the log, where the log has them as they are."""
    reads: Sequence[AccessEntry]
    """Who was shown text or tokens of these captures, newest first."""
    has_more_reads: bool
    first_captured_at: dt.datetime
    """Of the page's samples."""
    last_captured_at: dt.datetime


def get_subject(
    session: Session, tenant: uuid.UUID, key: str, after: Position | None, limit: int
) -> View | None:
    """Return a page of at most ``limit`` samples, newest first; None when it is empty.

    A capture whose samples stand on two pages is on both, with the samples of each.
    """
    query = select(Sample, Model.name).join(Model, Model.id == Sample.model_id)
    query = query.where(Sample.tenant_id == tenant, Sample.subject == key)
    if after is not None:
        query = query.where(older_than(Sample.captured_at, Sample.id, after))
    query = query.order_by(Sample.captured_at.desc(), Sample.id.desc()).limit(limit + 1)
    found = [SampleView(*row) for row in session.execute(query)]
    page = found[:limit]
    if not page:
        return None
    last = page[-1].sample
    texts = explanations.list_of_samples(session, [one.sample for one in page])
    reads = _reads(session, {_capture(one.sample) for one in page})
    return View(
        Page(
            _captures(session, page, texts),
            Position(last.captured_at, last.id) if len(found) > limit else None,
        ),
        _places(session, tenant, texts),
        reads[:LISTED_READS],
        len(reads) > LISTED_READS,
        last.captured_at,
        page[0].sample.captured_at,
    )


def _capture(sample: Sample) -> uuid.UUID:
    return capture_name(sample.capture_id, sample.model_id, sample.request_id)


def _captures(
    session: Session, page: Sequence[SampleView], texts: Sequence[explanations.View]
) -> list[Capture]:
    by_capture: dict[tuple[uuid.UUID, uuid.UUID], list[SampleView]] = {}
    for one in page:
        by_capture.setdefault((one.sample.model_id, _capture(one.sample)), []).append(one)
    ids = {one.sample.capture_id for one in page if one.sample.capture_id is not None}
    raised = flags.list_of_captures(session, ids)
    query = select(Incident.id, Incident.model_id, Incident.capture_id).where(Incident.capture_id.in_(ids))
    opened = session.execute(query.order_by(Incident.opened_at, Incident.id)).all()
    captures = []
    for (model_id, _), samples in by_capture.items():
        first, own = samples[0], {one.sample.id for one in samples}
        of = (model_id, first.sample.capture_id)
        captures.append(
            Capture(
                first.sample.capture_id,
                first.sample.request_id,
                first.model,
                samples,
                [one for one in texts if one.sample.id in own],
                [one for one in raised if (one.flag.model_id, one.flag.capture_id) == of],
                [row.id for row in opened if (row.model_id, row.capture_id) == of],
            )
        )
    return captures


def _places(
    session: Session, tenant: uuid.UUID, texts: Sequence[explanations.View]
) -> dict[uuid.UUID, int]:
    """Return the places in the log of the explanations that it holds as they are stored now."""
    logged = [one for one in texts if one.explanation.log_salt is not None]
    query = select(ConceptMatch).where(
        ConceptMatch.explanation_id.in_([one.explanation.id for one in logged])
    )
    matches: dict[uuid.UUID, list[Mapping[str, object]]] = {}
    for match in session.scalars(query):
        matches.setdefault(match.explanation_id, []).append(values_of(match))
    commitments = {
        commit(
            one.explanation.log_salt or b"",
            explanation_payload(
                values_of(one.explanation), values_of(one.sample), matches.get(one.explanation.id, ())
            ),
        ): one.explanation.id
        for one in logged
    }
    leaves = select(LogLeaf.commitment, LogLeaf.seq).where(
        LogLeaf.tenant_id == tenant, LogLeaf.commitment.in_(commitments)
    )
    return {commitments[commitment]: seq for commitment, seq in session.execute(leaves)}


def _reads(session: Session, captures: set[uuid.UUID]) -> Sequence[AccessEntry]:
    naming = select(AccessSubject.entry_id).where(
        AccessSubject.subject_id == any_(cast(list(captures), ARRAY(Uuid))),
        AccessSubject.was_asked.is_(False),
    )
    query = select(AccessEntry).where(AccessEntry.action == Action.READ_TEXT, AccessEntry.id.in_(naming))
    query = query.order_by(AccessEntry.at.desc(), AccessEntry.id.desc()).limit(LISTED_READS + 1)
    return session.scalars(query).all()
