"""The access log as answered: who did what, when, why and with what result, and what each key may do."""

import datetime as dt
import uuid
from typing import Annotated, Any, Literal

from pydantic import Field

from service import auth
from service.api.schemas.answer import Answer
from service.api.vocabulary import AccessAction, AccessPurpose, AccessResult, AccessSubjectKind
from service.store.access.read import Right
from service.store.people.tables import LoginSession
from service.store.tables import ApiKey

RemovedBefore = Annotated[
    dt.datetime | None,
    Field(
        description="Retention removed entries from before this time, so of then only what is left is "
        "told; null: it removed none. UTC."
    ),
]


class AccessLogEntry(Answer):
    """One thing that somebody did. It never changes."""

    id: uuid.UUID
    seq: int = Field(description="Grows with every entry; an entry that was not committed leaves a gap.")
    tenant_id: uuid.UUID
    at: dt.datetime = Field(description="When it was entered, by the database's clock, UTC.")
    key_id: uuid.UUID | None = Field(description="The API key that did it; null for a person or a command.")
    key_name: str | None = Field(description="The key's name at that time.", examples=["night shift"])
    session_id: uuid.UUID | None = Field(
        description="The session in which it was done; null for a key that was sent itself, or a command."
    )
    issuer: str | None = Field(
        description="Who says who the person is; null for a key or a command.",
        examples=["https://login.example.com"],
    )
    person: str | None = Field(
        description="Who signed in and did it, by the issuer's `sub`; null for a key or a command.",
        examples=["248289761001"],
    )
    database_login: str = Field(description="The login that the database saw.")
    os_user: str | None = Field(description="Who ran the command, by its machine; null for a key.")
    action: AccessAction = Field(description="What was done.", examples=["read_text"])
    operation: str = Field(
        description="The operation's id in this document, or the command.", examples=["get_explanation"]
    )
    subject_kind: AccessSubjectKind | None = Field(
        description="What `subject_ids` are ids of; null when it was about nothing in particular."
    )
    subject_ids: list[uuid.UUID] = Field(description="The first 200, in the order of the answer.")
    subjects_total: int = Field(description="How many there were.", examples=[1])
    capture_ids: list[uuid.UUID] = Field(
        description="Of `read_text`: the captures of which a text or a token was shown."
    )
    captures_total: int = Field(description="How many there were.", examples=[1])
    details: dict[str, Any] = Field(description="Codes, ids and figures: what a key was given, for one.")
    purpose: AccessPurpose | None = Field(description="Why, as the caller said.", examples=["audit"])
    purpose_note: str | None = Field(description="What the caller wrote after the code.")
    status: int | None = Field(description="The HTTP status; null for a command.", examples=[200])
    result: AccessResult = Field(description="What came of it; of a denial, why.", examples=["done"])
    suppressed: int = Field(
        description="Of `deny`: how many like it had no entry since the one before.", examples=[0]
    )


class AccessLogPage(Answer):
    """One page of entries, newest first."""

    removed_before: RemovedBefore
    items: list[AccessLogEntry]
    next_cursor: str | None = Field(description="Pass it as `cursor` for the next page; null on the last.")


class AccessRight(Answer):
    """What one key, or one person in one session, may do, and what it did in the period."""

    key_id: uuid.UUID | None = Field(description="Null for a session of a person.")
    session_id: uuid.UUID | None = Field(description="Null for a key.")
    issuer: str | None = Field(
        description="Who says who the person is; null for a key.", examples=["https://login.example.com"]
    )
    person: str | None = Field(
        description="Whose session it is, by the issuer's `sub`; null for a key.", examples=["248289761001"]
    )
    name: str = Field(description="Of the key; of the person, what the issuer said at the sign-in.")
    role: str | None = Field(
        description="The role that gave the scopes when it was made; null: they were given one by one, or "
        "by more than one role.",
        examples=["reviewer"],
    )
    roles: list[str] = Field(description="All roles that gave the scopes.", examples=[["reviewer"]])
    scopes: list[str] = Field(description="`admin` stands for all.", examples=[["audit:read"]])
    models: list[str] | None = Field(
        description="Served names of the only models that it reads; null: all of its tenant.",
        examples=[["chat"]],
    )
    may_read_text: bool = Field(description="Whether it may read texts and tokens for a stated purpose.")
    state: Literal["valid", "revoked", "expired"]
    created_at: dt.datetime = Field(description="UTC; the listing's order.")
    expires_at: dt.datetime | None = Field(
        description="Null: never. A session that is not used may be over before."
    )
    last_used_at: dt.datetime | None = Field(description="To the minute; null: never.")
    revoked_at: dt.datetime | None
    text_reads: int = Field(description="Answers in the period that showed text.", examples=[12])
    texts_read: int = Field(
        description="Explanations in them; one that was read twice counts twice.", examples=[340]
    )
    writes: int = Field(description="Changes that it made in the period.", examples=[3])
    denials: int = Field(
        description="What it was denied in the period; those without an entry count once a later one tells "
        "of them.",
        examples=[0],
    )


class AccessRightPage(Answer):
    """One page of keys and sessions, newest first."""

    start: dt.datetime = Field(description="Start of the period, inclusive, UTC.")
    end: dt.datetime = Field(description="End of the period, exclusive, UTC.")
    removed_before: RemovedBefore
    items: list[AccessRight]
    next_cursor: str | None = Field(description="Pass it as `cursor` for the next page; null on the last.")


def access_right(right: Right, now: dt.datetime) -> AccessRight:
    """Return the answer for one key or session, with its state at ``now``; never its secret or digest."""
    holder = right.holder
    same = ("scopes", "models", "created_at", "expires_at", "revoked_at")
    return AccessRight(
        may_read_text=auth.allows(holder.scopes, auth.Scope.EXPLANATIONS_READ_TEXT),
        **(_of_key(holder, now) if isinstance(holder, ApiKey) else _of_session(holder, now)),
        **{name: getattr(holder, name) for name in same},
        **right.usage._asdict(),
    )


def _of_key(key: ApiKey, now: dt.datetime) -> dict[str, Any]:
    return {
        "key_id": key.id,
        "session_id": None,
        "issuer": None,
        "person": None,
        "name": key.name,
        "role": key.role,
        "roles": [] if key.role is None else [key.role],
        "state": auth.state_of(key, now),
        "last_used_at": key.last_used_at,
    }


def _of_session(session: LoginSession, now: dt.datetime) -> dict[str, Any]:
    return {
        "key_id": None,
        "session_id": session.id,
        "issuer": session.issuer,
        "person": session.person,
        "name": session.display_name or session.person or "",
        "role": session.roles[0] if len(session.roles) == 1 else None,
        "roles": session.roles,
        "state": auth.session_state_of(session, now),
        "last_used_at": session.last_seen_at,
    }
