"""The access log: a row for each read of text, write, denial, export, change of keys or configuration.

It holds ids, codes and names of keys: no explanation, no prompt, no secret, and no network address.
"""

import datetime as dt
import uuid
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Identity,
    Index,
    PrimaryKeyConstraint,
    SmallInteger,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA
from sqlalchemy.orm import Mapped, mapped_column

from service.store.base import Base, OfTenant

MAX_SUBJECTS: Final = 200
"""Ids of one kind that an entry names: as many as the largest page lists."""


class Action(StrEnum):
    """What was done."""

    READ_TEXT = "read_text"
    WRITE = "write"
    DENY = "deny"
    EXPORT = "export"
    KEY_CHANGE = "key_change"
    CONFIGURATION_CHANGE = "configuration_change"
    LOG_READ = "log_read"
    SIGN_IN = "sign_in"
    SIGN_OUT = "sign_out"
    SESSION_CHANGE = "session_change"


class SubjectKind(StrEnum):
    """What an entry's subject ids are ids of."""

    EXPLANATION = "explanation"
    INCIDENT = "incident"
    API_KEY = "api_key"
    EXPORT = "export"
    CONFIGURATION = "configuration"
    LEGAL_HOLD = "legal_hold"
    SESSION = "session"
    RETENTION_VERSION = "retention_version"
    VECTOR_KEY = "vector_key"
    ERASURE = "erasure"


class Result(StrEnum):
    """What came of it; of a denial, why."""

    DONE = "done"
    MISSING_SCOPE = "missing_scope"
    REVOKED_KEY = "revoked_key"
    EXPIRED_KEY = "expired_key"
    REVOKED_SESSION = "revoked_session"
    EXPIRED_SESSION = "expired_session"
    CROSS_ORIGIN = "cross_origin"
    FAILED = "failed"  # of a sign-in: `details` says why


class Purpose(StrEnum):
    """What text may be read for. Whoever reads it says one of these."""

    INCIDENT_RESPONSE = "incident_response"
    COMPLIANCE_REVIEW = "compliance_review"
    QUALITY_REVIEW = "quality_review"
    DEBUGGING = "debugging"
    SUBJECT_REQUEST = "subject_request"
    AUDIT = "audit"


def _one_of(column: str, values: type[StrEnum]) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


class AccessEntry(OfTenant, Base):
    """One thing that somebody did. Triggers refuse every change, to the table's owner too, but one.

    That one is for erasure: ids may be taken out of its lists, in a transaction that says so.

    No foreign key leads out of it: an entry stays whatever becomes of what it names.
    """

    __tablename__ = "access_log"
    __table_args__ = (
        _one_of("action", Action),
        _one_of("result", Result),
        CheckConstraint("subjects_total >= cardinality(subject_ids)", name="subjects"),
        CheckConstraint("captures_total >= cardinality(capture_ids)", name="captures"),
        CheckConstraint("suppressed >= 0", name="suppressed"),
        # Pages follow the time, which the database gives and nobody changes.
        Index("ix_access_log_at_id", "at", "id"),
        Index("ix_access_log_key_id_at_id", "key_id", "at", "id"),
        Index(
            "ix_access_log_session_id_at",
            "session_id",
            "at",
            postgresql_where=text("session_id IS NOT NULL"),
        ),
        Index(
            "ix_access_log_person_at_id",
            "person",
            "at",
            "id",
            postgresql_where=text("person IS NOT NULL"),
        ),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)  # random: an entry happens once
    seq: Mapped[int] = mapped_column(BigInteger, Identity(always=True), unique=True)
    at: Mapped[dt.datetime] = mapped_column(server_default=text("clock_timestamp()"))
    # Who: a key of the service, a person, or for a command the login that the database saw and the system's
    # user. In a session that a key signed in to, the key.
    key_id: Mapped[uuid.UUID | None]
    key_name: Mapped[str | None]  # as it was then
    session_id: Mapped[uuid.UUID | None]
    issuer: Mapped[str | None]  # of the person
    person: Mapped[str | None]  # the issuer's `sub`
    database_login: Mapped[str] = mapped_column(server_default=text("SESSION_USER"))
    os_user: Mapped[str | None]  # who ran the command, as its own machine says
    # What.
    action: Mapped[str]  # an Action
    operation: Mapped[str]  # the operation's id in the OpenAPI document, or the command
    subject_kind: Mapped[str | None]  # a SubjectKind
    subject_ids: Mapped[list[uuid.UUID]] = mapped_column(ARRAY(Uuid), server_default=text("'{}'::uuid[]"))
    subjects_total: Mapped[int] = mapped_column(server_default=text("0"))  # those that found no room too
    # Of read_text: every capture of which a text or a token was shown, by identity.capture_key.
    capture_ids: Mapped[list[uuid.UUID]] = mapped_column(ARRAY(Uuid), server_default=text("'{}'::uuid[]"))
    captures_total: Mapped[int] = mapped_column(server_default=text("0"))
    details: Mapped[dict[str, Any]] = mapped_column(
        server_default=text("'{}'::jsonb")
    )  # codes, ids, figures
    # Why.
    purpose: Mapped[str | None]  # a Purpose
    purpose_note: Mapped[str | None]
    # What came of it.
    status: Mapped[int | None] = mapped_column(SmallInteger)  # of HTTP; None: a command's
    result: Mapped[str]  # a Result
    suppressed: Mapped[int] = mapped_column(server_default=text("0"))  # like it before, without a row
    log_salt: Mapped[bytes | None] = mapped_column(BYTEA)  # of its hash in a log of hashes; None: in none
    # Commitments to what it said before ids were erased from it; None: it is as it was written.
    log_trail: Mapped[list[bytes] | None] = mapped_column(ARRAY(BYTEA))


class AccessSubject(OfTenant, Base):
    """An id that an entry names. Triggers of the access log write it and nobody else, its owner neither.

    By it entries are found that name an id: under row-level security no index over their lists serves.
    """

    __tablename__ = "access_subjects"
    __table_args__ = (PrimaryKeyConstraint("tenant_id", "subject_id", "was_asked", "at", "entry_id"),)

    subject_id: Mapped[uuid.UUID]  # of either list
    # A reading of the log asked for it, which is not about it; what is erased is taken out there too.
    was_asked: Mapped[bool]
    at: Mapped[dt.datetime]  # the entry's
    entry_id: Mapped[uuid.UUID]
