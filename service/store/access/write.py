"""Adding entries to the access log. Whoever opened the session commits."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from sqlalchemy import insert
from sqlalchemy.orm import Session

from service.evidence.entry import new_salt
from service.evidence.payloads import Kind, payload_of
from service.store.access.tables import MAX_SUBJECTS, AccessEntry, Action, Purpose, Result, SubjectKind
from service.store.base import values_of
from service.store.evidence.append import append


@dataclass(frozen=True, slots=True, kw_only=True)
class Subjects:
    """What an entry is about: ids in the order of the answer, as many as there are."""

    kind: SubjectKind
    ids: Sequence[uuid.UUID]
    captures: Sequence[uuid.UUID] = ()
    """Captures of which a text or a token is shown, by `identity.capture_key`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What somebody did. Time, tenant, order and login are the database's to say."""

    action: Action
    operation: str
    key_id: uuid.UUID | None = None
    key_name: str | None = None
    session_id: uuid.UUID | None = None
    issuer: str | None = None
    person: str | None = None
    os_user: str | None = None
    subjects: Subjects | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    """Codes, ids and figures: never a text, a prompt, an id that a client chose, or a secret."""
    purpose: Purpose | None = None
    purpose_note: str | None = None
    status: HTTPStatus | None = None
    result: Result = Result.DONE
    suppressed: int = 0
    """How many like it had no entry of their own since the one before."""


def add_entry(session: Session, entry: Entry) -> uuid.UUID:
    """Add an entry and return its id. It keeps the first `MAX_SUBJECTS` ids of a kind, and their total.

    The evidence log commits to it in the same transaction.
    """
    salt = new_salt()
    insertion = insert(AccessEntry).values(id=uuid.uuid4(), log_salt=salt, **_columns(entry))
    row = values_of(session.scalars(insertion.returning(AccessEntry)).one())
    append(session, Kind.ACCESS, [payload_of(Kind.ACCESS, row)], [salt])
    return uuid.UUID(str(row["id"]))


def _columns(entry: Entry) -> dict[str, Any]:
    who = ("key_id", "key_name", "session_id", "issuer", "person", "os_user")
    same = ("action", "operation", *who, "purpose", "purpose_note")
    about = entry.subjects
    named = (
        {}
        if about is None
        else {
            "subject_kind": about.kind,
            "subject_ids": list(about.ids[:MAX_SUBJECTS]),
            "subjects_total": len(about.ids),
            "capture_ids": list(about.captures[:MAX_SUBJECTS]),
            "captures_total": len(about.captures),
        }
    )
    return {name: getattr(entry, name) for name in same} | {
        **named,
        "details": dict(entry.details),
        "status": entry.status,
        "result": entry.result,
        "suppressed": entry.suppressed,
    }
