"""The tables of kept vectors: ciphertexts that expire, and the wrapped keys that open them.

The service's login may read neither. A worker's adds vectors and cannot read them back.
"""

import datetime as dt
import uuid

from sqlalchemy import CheckConstraint, Index, func, text
from sqlalchemy.dialects.postgresql import BYTEA
from sqlalchemy.orm import Mapped, mapped_column

from service.store.base import Base, OfTenant
from service.store.vectors.sealing import NONCE_BYTES


class VectorKey(OfTenant, Base):
    """A tenant's data key, wrapped by the operator's. A row is never deleted; a destroyed key is gone."""

    __tablename__ = "vector_keys"
    __table_args__ = (
        CheckConstraint("(wrapped IS NULL) = (destroyed_at IS NOT NULL)", name="destroyed"),
        CheckConstraint("destroyed_at IS NULL OR retired_at IS NOT NULL", name="retired"),
        # New vectors are sealed under one key, whoever stores them.
        Index(
            "uq_vector_keys_tenant_id_in_use",
            "tenant_id",
            unique=True,
            postgresql_where=text("retired_at IS NULL"),
        ),
        Index("ix_vector_keys_tenant_id", "tenant_id"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)  # random
    wrapped_by: Mapped[str]  # sealing.WrappingKey.id, to tell a wrong key file from a damaged row
    wrapped: Mapped[bytes | None] = mapped_column(BYTEA)  # None: destroyed
    created_at: Mapped[dt.datetime] = mapped_column(server_default=func.now())
    retired_at: Mapped[dt.datetime | None]  # from then on it seals nothing, and opens what it sealed
    destroyed_at: Mapped[dt.datetime | None]  # from then on nothing opens what it sealed


class Vector(OfTenant, Base):
    """One activation as its record brought it, sealed under `sealing.associated`.

    It has no foreign keys: samples are parts of days that go with their day, and a check of the key would
    lock its one row with each row of an ingest.
    """

    __tablename__ = "vectors"
    __table_args__ = (
        CheckConstraint("dtype IN ('float32', 'bfloat16', 'float16')", name="dtype"),
        CheckConstraint(f"octet_length(nonce) = {NONCE_BYTES}", name="nonce"),
        Index("ix_vectors_expires_at", "expires_at"),
    )

    sample_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    # Of the capture that was read: a sample that is captured again may have other last bits.
    captured_at: Mapped[dt.datetime] = mapped_column(primary_key=True)
    key_id: Mapped[uuid.UUID]
    dtype: Mapped[str]  # of the record, little endian
    d_model: Mapped[int]
    nonce: Mapped[bytes] = mapped_column(BYTEA)  # random; no key seals so many that two would be equal
    ciphertext: Mapped[bytes] = mapped_column(BYTEA)
    expires_at: Mapped[dt.datetime]
