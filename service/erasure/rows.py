"""Delete explanations with all that stands on them, and bury their entries in the log. The caller commits.

In one transaction are the rows, their tombstone and what it leaves of others: after a kill all of it
happened or nothing, and the log verifies before and behind it. A row whose entry has no place in the log
yet stays, with its whole subject, until `subtext log` has given it one.
"""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final, cast

from sqlalchemy import ColumnElement, CursorResult, delete, exists, select
from sqlalchemy.orm import Session

from service.evidence.payloads import Kind
from service.evidence.tombstones import Reason
from service.retention import holds
from service.store.erasure import access
from service.store.erasure.bury import bury, find_places
from service.store.erasure.standing import Span, Standing, list_subjects, of_subjects, read_standing
from service.store.evidence.append import add_pending
from service.store.identity import capture_key, capture_name
from service.store.tables import (
    Base,
    ConceptMatch,
    Explanation,
    Flag,
    Incident,
    IncidentEvent,
    RequestName,
    RequestTest,
    Sample,
    WebhookDelivery,
    WebhookMessage,
)
from service.store.tenants import scope
from service.store.vectors import rows as vectors
from service.store.write.flags import Subject, change_flag
from service.store.write.readings import lock_captures

AT_ONCE: Final = 500
"""Explanations that one transaction should erase: workers that read the same captures wait for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """How many rows went, and what is left to do."""

    explanations: int = 0
    samples: int = 0
    concept_matches: int = 0
    request_names: int = 0
    flags: int = 0
    flags_changed: int = 0
    """Those that other explanations still support."""
    incidents: int = 0
    incident_events: int = 0
    request_tests: int = 0
    vectors: int = 0
    access_entries: int = 0
    """Entries of the access log from which ids were taken."""
    log_entries: int = 0
    """That tombstones cover now."""
    waiting: int = 0
    """Subjects that stay for now, since an entry of theirs has no place in the log yet."""
    ids: tuple[uuid.UUID, ...] = field(default=(), compare=False)
    """Of what went, and of captures of which nothing is left: what an export may name."""

    def __add__(self, other: "Erased") -> "Erased":
        """Return both together."""
        names = [one.name for one in fields(self)]
        return Erased(**{name: getattr(self, name) + getattr(other, name) for name in names})

    def counts(self) -> dict[str, int]:
        """Return by kind how many rows went."""
        rows = asdict(self)
        del rows["waiting"], rows["ids"]
        return rows


def erase_explanations(
    session: Session,
    ids: Sequence[uuid.UUID],
    *,
    reason: Reason,
    authority: uuid.UUID,
    within: Span | None = None,
) -> Erased:
    """Erase these explanations of the transaction's tenant, with what stands on them alone.

    ``authority`` is the erasure request or retention run, which the tombstone names. ``within`` says when
    they were captured, where that is known. Ids that are not there are nothing to do, so it can be
    repeated. At most `AT_ONCE` at a time keeps workers waiting briefly; the transaction must be READ
    COMMITTED, and may call this or `erase_subjects` once.
    """
    tenant = scope.tenant_of(session)
    subjects = list_subjects(session, tenant, ids, within)
    return erase_subjects(session, subjects, ids, reason=reason, authority=authority, within=within)


def erase_subjects(
    session: Session,
    subjects: Sequence[Subject],
    ids: Sequence[uuid.UUID] = (),
    *,
    reason: Reason,
    authority: uuid.UUID,
    within: Span | None = None,
) -> Erased:
    """Erase these explanations of the subjects, and what of the subjects has no explanation any more.

    A subject stays whole where a legal hold covers what stands on it. The caller passes no explanation that
    a hold covers.
    """
    tenant = scope.tenant_of(session)
    holds.freeze(session)
    lock_captures(session, subjects)
    held = _list_held(session, tenant, subjects)
    standings = read_standing(session, tenant, [one for one in subjects if one not in held], ids, within)
    naming = _list_naming(session, tenant, standings, ids, reason)
    # All that an entry was found for: what waits keeps its whole subject, whose other rows then stay too.
    wanted = {one for standing in standings for one in standing.commitments()}
    wanted |= {one for entry in naming for one in entry.commitments}
    places = find_places(session, tenant, wanted)
    going = _without_waiting(standings, naming, places.waiting, tenant)
    erased = Erased(waiting=len(standings) - len(going)) + _delete(session, going, within)
    captures = _gone_captures(session, tenant, going)
    names = _forget(session, tenant, captures.keys())
    gone_names: set[uuid.UUID] = set().union(*captures.values())
    named = {one for standing in going for one in standing.named()} | gone_names
    shrinking = [entry for entry in naming if entry.names & named]
    access.take_out(session, shrinking, named)
    gone = [one for standing in going for one in standing.commitments()]
    gone += [one for entry in shrinking for one in entry.commitments]
    buried = bury(
        session,
        (places.known[one] for one in gone if one in places.known),
        reason=reason,
        authority=authority,
    )
    return erased + Erased(
        request_names=names,
        access_entries=len(shrinking),
        log_entries=buried,
        ids=tuple(gone_names.union(*(one.gone() for one in going))),
    )


def forget_captures(session: Session, captures: Sequence[uuid.UUID], *, authority: uuid.UUID) -> Erased:
    """Erase the names of captures of which nothing else is left, and take them out of the access log.

    ``captures`` are by `identity.capture_key`.
    """
    tenant = scope.tenant_of(session)
    names_of = _names_of(session, tenant, captures)
    naming = access.list_naming(session, tenant, set().union(*names_of.values()))
    places = find_places(session, tenant, [one for entry in naming for one in entry.commitments])
    waiting = {one for entry in naming if places.waiting & set(entry.commitments) for one in entry.names}
    gone = {key: names for key, names in names_of.items() if names.isdisjoint(waiting)}
    gone_names: set[uuid.UUID] = set().union(*gone.values())
    shrinking = [entry for entry in naming if entry.names & gone_names]
    access.take_out(session, shrinking, gone_names)
    buried = bury(
        session,
        (places.known[one] for entry in shrinking for one in entry.commitments if one in places.known),
        reason=Reason.ERASURE,
        authority=authority,
    )
    return Erased(
        request_names=_forget(session, tenant, gone.keys()),
        access_entries=len(shrinking),
        log_entries=buried,
        waiting=len(names_of) - len(gone),
        ids=tuple(gone_names),
    )


def _list_held(session: Session, tenant: uuid.UUID, subjects: Sequence[Subject]) -> set[Subject]:
    """Return the subjects of which a hold covers a flag, an incident or a test, and others like them."""
    found = set()
    for table in holds.STANDING:
        unit = (table.model_id, table.decoder_id, table.capture_id, table.request_id, table.layer)
        query = select(*unit).where(of_subjects(table, tenant, subjects), holds.covers_standing(table))
        found |= {Subject(*row) for row in session.execute(query)}
    return found


def _list_naming(
    session: Session,
    tenant: uuid.UUID,
    standings: Sequence[Standing],
    ids: Collection[uuid.UUID],
    reason: Reason,
) -> list[access.Naming]:
    """Return the entries of the access log that name what may go; retention forgets nobody, so none."""
    if reason is not Reason.ERASURE:
        return []
    named = {one for standing in standings for one in standing.named()} | set(ids)
    captures = (_names(one.subject, tenant) for one in standings)
    return access.list_naming(session, tenant, named.union(*captures))


def _without_waiting(
    standings: Sequence[Standing],
    naming: Sequence[access.Naming],
    waiting: frozenset[bytes],
    tenant: uuid.UUID,
) -> list[Standing]:
    """Return those of which no entry waits, of their own or of the access log."""
    if not waiting:
        return list(standings)
    named = {one for entry in naming if not waiting.isdisjoint(entry.commitments) for one in entry.names}
    return [
        one
        for one in standings
        if set(one.commitments()).isdisjoint(waiting)
        and named.isdisjoint(_names(one.subject, tenant).union(one.named()))
    ]


def _delete(session: Session, going: Sequence[Standing], within: Span | None) -> Erased:
    explanations = [row.key for one in going for row in one.explanations]
    events = [row.key for one in going for row in one.events]
    then = () if within is None else (Explanation.captured_at.between(*within),)
    _run(session, WebhookDelivery, WebhookDelivery.event_id.in_(events))
    _run(session, WebhookMessage, WebhookMessage.event_id.in_(events))
    # By foreign keys what leads to others goes first.
    incidents = [id_ for one in going for id_ in one.incidents]
    erased = Erased(
        incident_events=_run(session, IncidentEvent, IncidentEvent.id.in_(events)),
        incidents=_run(session, Incident, Incident.id.in_(incidents)),
        flags=_run(session, Flag, Flag.id.in_([row.key for one in going for row in one.flags])),
        request_tests=_run(
            session, RequestTest, RequestTest.id.in_([id_ for one in going for id_ in one.tests])
        ),
        concept_matches=_run(session, ConceptMatch, ConceptMatch.explanation_id.in_(explanations)),
        explanations=_run(session, Explanation, Explanation.id.in_(explanations), *then),
    )
    samples = [id_ for one in going for id_ in one.samples]
    gone = _delete_samples(session, samples, within)
    left = set(session.scalars(select(Sample.id).where(Sample.id.in_(samples))))
    kept = vectors.delete_for(session, [one for one in samples if one not in left])
    changed = [change_flag(session, *flag) for one in going for flag in one.changed_flags]
    commitments = [one for one in changed if one is not None]
    add_pending(session, Kind.FLAG, commitments)
    return erased + Erased(samples=gone, vectors=kept, flags_changed=len(commitments))


def _delete_samples(session: Session, samples: Sequence[uuid.UUID], within: Span | None) -> int:
    """Delete the samples that no other decoder has read."""
    then = () if within is None else (Sample.captured_at.between(*within),)
    is_read = exists().where(Explanation.sample_id == Sample.id)
    return _run(session, Sample, Sample.id.in_(samples), ~is_read, *then)


def _gone_captures(
    session: Session, tenant: uuid.UUID, going: Sequence[Standing]
) -> dict[uuid.UUID, frozenset[uuid.UUID]]:
    """Return the keys of the captures of which no sample is left, each with what it may be named by."""
    keys = {_key(one.subject, tenant): one.subject for one in going}
    unit = (Sample.model_id, Sample.capture_id, Sample.request_id)
    query = select(*unit).where(of_subjects(Sample, tenant, keys.values())).distinct()
    left = {
        capture_key(capture_id, model_id, request_id, tenant)
        for model_id, capture_id, request_id in session.execute(query)
    }
    return {key: _names(subject, tenant) for key, subject in keys.items() if key not in left}


def _names_of(
    session: Session, tenant: uuid.UUID, captures: Sequence[uuid.UUID]
) -> dict[uuid.UUID, frozenset[uuid.UUID]]:
    """Return what each capture, by its key, may be named by."""
    mine = (RequestName.tenant_id == tenant, RequestName.capture.in_(captures))
    query = select(RequestName.capture, RequestName.capture_id).where(*mine).distinct()
    names = {one: {one} for one in captures}
    for key, capture_id in session.execute(query):
        if capture_id is not None:
            names[key].add(capture_id)
    return {key: frozenset(one) for key, one in names.items()}


def _forget(session: Session, tenant: uuid.UUID, captures: Collection[uuid.UUID]) -> int:
    """Delete the names of captures, but for those under a hold."""
    mine = (RequestName.tenant_id == tenant, RequestName.capture.in_(captures))
    return _run(session, RequestName, *mine, ~holds.covers_names())


def _names(subject: Subject, tenant: uuid.UUID) -> frozenset[uuid.UUID]:
    """Return what the access log and exports may name a capture by: of before, entries had its key, too."""
    name = capture_name(subject.capture_id, subject.model_id, subject.request_id)
    return frozenset({name, _key(subject, tenant)})


def _key(subject: Subject, tenant: uuid.UUID) -> uuid.UUID:
    return capture_key(subject.capture_id, subject.model_id, subject.request_id, tenant)


def _run(session: Session, table: type[Base], *conditions: ColumnElement[bool]) -> int:
    """Delete the rows that meet the conditions and return how many."""
    statement = delete(table).where(*conditions)
    result = session.execute(statement, execution_options={"synchronize_session": False})
    return cast("CursorResult[Any]", result).rowcount
