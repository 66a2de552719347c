"""The exports that were asked for. Their files lie in a folder; nothing of what they hold stands here."""

import datetime as dt
import uuid
from enum import StrEnum

from sqlalchemy import BigInteger, CheckConstraint, Index, Text, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from service.evidence.bundle.layout import RowFormat
from service.store.base import IS_NAMED, Base, OfActor, OfTenant


class State(StrEnum):
    """What became of an export."""

    WAITING = "waiting"
    RUNNING = "running"
    READY = "ready"
    FAILED = "failed"
    EXPIRED = "expired"
    ERASED = "erased"


class Export(OfActor, OfTenant, Base):
    """One bundle that somebody asked for. A trigger puts its job into the queue when it is inserted."""

    __tablename__ = "exports"
    __table_args__ = (
        CheckConstraint(f"state IN ({', '.join(repr(str(one)) for one in State)})", name="state"),
        CheckConstraint(f"format IN ({', '.join(repr(str(one)) for one in RowFormat)})", name="format"),
        CheckConstraint("period_start < period_end", name="period"),
        CheckConstraint(IS_NAMED, name="named"),
        CheckConstraint(
            "state <> 'ready' OR (bytes IS NOT NULL AND sha256 IS NOT NULL AND expires_at IS NOT NULL)",
            name="ready",
        ),
        # Pages follow the time, which never changes.
        Index("ix_exports_requested_at_id", "requested_at", "id"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)  # random: each asking is another
    state: Mapped[str] = mapped_column(server_default=text("'waiting'"))  # a State
    kinds: Mapped[list[str]] = mapped_column(ARRAY(Text))  # service.exports.query.ExportKind
    # Served name of the one model that was asked for; None: all that the caller may read. Not `model`, by
    # which row-level security would let a key for that model meet what one for all models asked for.
    of_model: Mapped[str | None]
    models: Mapped[list[str] | None] = mapped_column(ARRAY(Text))  # all that the key may read; None: any
    period_start: Mapped[dt.datetime]
    period_end: Mapped[dt.datetime]
    format: Mapped[str] = mapped_column(server_default=text("'ndjson'"))  # of the rows: a RowFormat
    with_text: Mapped[bool]
    earlier_size: Mapped[int | None] = mapped_column(BigInteger)  # of the checkpoint that it must grow from
    # Why, as whoever asked said.
    purpose: Mapped[str | None]
    purpose_note: Mapped[str | None]
    requested_at: Mapped[dt.datetime] = mapped_column(server_default=text("now()"))
    # What became of it.
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    finished_at: Mapped[dt.datetime | None]
    expires_at: Mapped[dt.datetime | None]  # the file is deleted then
    bytes: Mapped[int | None] = mapped_column(BigInteger)
    sha256: Mapped[str | None]  # of the file
    rows: Mapped[int | None] = mapped_column(BigInteger)  # handed out
    withheld: Mapped[int | None] = mapped_column(BigInteger)  # entries of the period without a row in it
    problem: Mapped[str | None]  # why it failed, as a code
