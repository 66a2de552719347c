"""The sessions: who signed in to the service, what he may do, and until when."""

import datetime as dt
import uuid
from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, Text, func, text
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA
from sqlalchemy.orm import Mapped, mapped_column

from service.store.base import Base, OfTenant


class End(StrEnum):
    """Why a session works no more, though its time was not over."""

    SIGNED_OUT = "signed_out"
    REPLACED = "replaced"  # by the next one in the same browser
    REVOKED = "revoked"  # by an operator


class LoginSession(OfTenant, Base):
    """What a browser's cookie stands for: a person whom an issuer named, or an API key.

    Only the SHA-256 of the cookie's token is kept. What a key's session may do is the key's, as it is then.
    """

    __tablename__ = "sessions"
    __table_args__ = (
        CheckConstraint("(person IS NULL) <> (key_id IS NULL)", name="whose"),
        CheckConstraint("(person IS NULL) = (issuer IS NULL)", name="issuer"),
        CheckConstraint("(revoked_at IS NULL) = (ended IS NULL)", name="ended"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    token_sha256: Mapped[bytes] = mapped_column(BYTEA, unique=True)
    login_sha256: Mapped[bytes | None] = mapped_column(BYTEA, unique=True)  # a login makes one session
    issuer: Mapped[str | None]
    person: Mapped[str | None]  # the issuer's `sub`
    display_name: Mapped[str | None]
    key_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("api_keys.id"))
    roles: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'::text[]"))
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'::text[]"))
    models: Mapped[list[str] | None] = mapped_column(ARRAY(Text))  # served names; None: all of the tenant
    created_at: Mapped[dt.datetime] = mapped_column(server_default=func.now())
    last_seen_at: Mapped[dt.datetime | None]
    idle_expires_at: Mapped[dt.datetime]
    expires_at: Mapped[dt.datetime]  # however often it is used
    revoked_at: Mapped[dt.datetime | None]
    ended: Mapped[str | None]  # an End
