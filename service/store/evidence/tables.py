"""The tables of the evidence log: what waits for a place in it, its tree, checkpoints and tombstones.

Nothing in them is personal and nothing in them is ever changed; what waits is deleted once it is a leaf.
"""

import datetime as dt
import uuid

from sqlalchemy import BigInteger, CheckConstraint, Identity, Index, SmallInteger, UniqueConstraint, func
from sqlalchemy.dialects.postgresql import BYTEA, INT8MULTIRANGE
from sqlalchemy.dialects.postgresql.ranges import MultiRange
from sqlalchemy.orm import Mapped, mapped_column

from service.evidence.entry import COMMITMENT_BYTES
from service.store.base import Base, OfTenant
from service.store.tenants.scope import COLUMN_DEFAULT


class LogPending(OfTenant, Base):
    """Commitments of one kind that one transaction stored, until the sequencer gives them a place."""

    __tablename__ = "log_pending"
    __table_args__ = (
        CheckConstraint("kind ~ '^[a-z_]{1,32}$'", name="kind"),
        # One value for all, so that a transaction adds a row however many it commits to.
        CheckConstraint(
            f"octet_length(commitments) > 0 AND octet_length(commitments) % {COMMITMENT_BYTES} = 0",
            name="commitments",
        ),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    kind: Mapped[str]  # service.evidence.payloads.Kind
    commitments: Mapped[bytes] = mapped_column(BYTEA)  # one after the other
    at: Mapped[dt.datetime] = mapped_column(server_default=func.now())  # when the transaction began


class LogLeaf(Base):
    """An entry at its place in a tenant's log."""

    __tablename__ = "log_leaves"
    __table_args__ = (UniqueConstraint("tenant_id", "commitment"),)

    tenant_id: Mapped[uuid.UUID] = mapped_column(primary_key=True, server_default=COLUMN_DEFAULT)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)  # from 0, no gaps
    kind: Mapped[str]
    at: Mapped[dt.datetime]  # of LogPending
    commitment: Mapped[bytes] = mapped_column(BYTEA)


class LogNode(Base):
    """The root of 256 leaves, of 256 times as many, and so on: proofs need not read all leaves."""

    __tablename__ = "log_nodes"

    tenant_id: Mapped[uuid.UUID] = mapped_column(primary_key=True, server_default=COLUMN_DEFAULT)
    level: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)  # 1: of leaves
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    hash: Mapped[bytes] = mapped_column(BYTEA)


class LogTombstone(OfTenant, Base):
    """Which entries lost their rows at once, and by what right. The log commits to it like to any row."""

    __tablename__ = "log_tombstones"
    __table_args__ = (
        CheckConstraint("reason IN ('erasure', 'retention')", name="reason"),
        CheckConstraint("count > 0 AND NOT isempty(leaves)", name="count"),
        Index("ix_log_tombstones_authority", "authority"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    at: Mapped[dt.datetime] = mapped_column(server_default=func.now())  # when the transaction began
    reason: Mapped[str]  # service.evidence.tombstones.Reason
    authority: Mapped[uuid.UUID]  # the erasure request or retention run
    leaves: Mapped[MultiRange[int]] = mapped_column(INT8MULTIRANGE)  # places of the entries
    count: Mapped[int] = mapped_column(BigInteger)  # of those places
    log_salt: Mapped[bytes] = mapped_column(BYTEA)  # opens the log's entry


class LogCheckpoint(Base):
    """A checkpoint as it was signed: a copy of what the file says, which no login here can write."""

    __tablename__ = "log_checkpoints"

    tenant_id: Mapped[uuid.UUID] = mapped_column(primary_key=True, server_default=COLUMN_DEFAULT)
    size: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    note: Mapped[str]
    signed_at: Mapped[dt.datetime] = mapped_column(server_default=func.now())
