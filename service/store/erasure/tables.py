"""Requests for erasure: what is to go, and afterwards that it went, without telling what it was."""

import datetime as dt
import uuid
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import CheckConstraint, Computed, Index, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import BYTEA
from sqlalchemy.orm import Mapped, mapped_column

from service.store.base import IS_NAMED, WHO, Base, OfActor, OfTenant

TERM: Final = dt.timedelta(days=30)
"""Until when an erasure has to be done: the month of Article 12(3) of Regulation (EU) 2016/679."""


class ErasureScope(StrEnum):
    """What an identifier is of."""

    REQUEST = "request"  # an id that a capture can be looked up by
    CAPTURE = "capture"
    TRACE = "trace"
    SUBJECT = "subject"  # a person, by subject key
    TENANT = "tenant"  # all that was captured for it until it was asked


class ErasureState(StrEnum):
    """Where an erasure stands."""

    OPEN = "open"
    DONE = "done"
    CANCELLED = "cancelled"  # somebody objected in time, and nothing of it was carried out


class Erasure(OfActor, OfTenant, Base):
    """One request for erasure. What it was about is kept until it is done or cancelled, and no longer.

    Triggers say how long it waits for objections, and let nobody carry it out before.
    """

    __tablename__ = "erasures"
    __table_args__ = (
        CheckConstraint("scope IN ('request', 'capture', 'trace', 'subject', 'tenant')", name="scope"),
        CheckConstraint("state IN ('open', 'done', 'cancelled')", name="state"),
        CheckConstraint(IS_NAMED, name="named"),
        CheckConstraint("(state <> 'open') = (finished_at IS NOT NULL)", name="finished"),
        CheckConstraint(
            "(identifier IS NULL) = (state <> 'open' OR scope = 'tenant')",
            name="identifier",
        ),
        UniqueConstraint("id", "tenant_id", "asked_by"),  # for who confirms it
        # Pages follow asked_at, which never changes.
        Index("ix_erasures_asked_at_id", "asked_at", "id"),
        Index("ix_erasures_open", "asked_at", postgresql_where=text("state = 'open'")),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    asked_at: Mapped[dt.datetime] = mapped_column(server_default=func.now())
    due_at: Mapped[dt.datetime] = mapped_column(server_default=text("now() + '30 days'::interval"))
    scope: Mapped[str]  # an ErasureScope
    identifier: Mapped[str | None]
    commitment: Mapped[bytes] = mapped_column(BYTEA)  # to scope and identifier, by the certificate's salt
    state: Mapped[str] = mapped_column(server_default=text("'open'"))  # an ErasureState
    counts: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))  # what went
    held: Mapped[int] = mapped_column(server_default=text("0"))  # rows that a legal hold keeps
    clean_since: Mapped[dt.datetime | None]  # since when every sweep found nothing more
    finished_at: Mapped[dt.datetime | None]
    objectable_until: Mapped[dt.datetime | None]  # set by a trigger; None: asked before removals waited
    asked_by: Mapped[str | None] = mapped_column(Computed(WHO, persisted=True))
