"""Versions of configurations, what they hold, and when which process ran them.

Versions and contents never change and are never deleted; a trigger of revision 0021 sees to that.
"""

import datetime as dt
import uuid
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Identity, Index, Integer, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, JSON
from sqlalchemy.orm import Mapped, mapped_column

from service.store.base import Base, OfTenant
from subtext_sidecar.contract.configuration import MAX_CONTENT_BYTES


class ConfigurationVersion(OfTenant, Base):
    """A name for a content: what rows and periods refer to, also before anybody told what it holds."""

    __tablename__ = "configuration_versions"
    __table_args__ = (UniqueConstraint("tenant_id", "kind", "digest"),)

    # Four bytes in each sample and explanation; a digest there would be 64, of 155 million rows 10 GB.
    id: Mapped[int] = mapped_column(Integer, Identity(), primary_key=True)
    kind: Mapped[str]  # a contract.configuration.Kind
    digest: Mapped[str]  # SHA-256 of the content
    created_at: Mapped[dt.datetime] = mapped_column(server_default=func.now())
    log_salt: Mapped[bytes | None] = mapped_column(BYTEA)  # opens the log's entry; None: in no log


class ConfigurationContent(OfTenant, Base):
    """What a version holds; there is none of a version that was only named, or is too long."""

    __tablename__ = "configuration_contents"
    __table_args__ = (CheckConstraint(f"octet_length(content::text) <= {MAX_CONTENT_BYTES}", name="size"),)

    version_id: Mapped[int] = mapped_column(ForeignKey("configuration_versions.id"), primary_key=True)
    # Not jsonb, which writes numbers its own way: the digest is that of this very text.
    content: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_at: Mapped[dt.datetime] = mapped_column(server_default=func.now())
    log_salt: Mapped[bytes | None] = mapped_column(BYTEA)  # as of a version


class ConfigurationPeriod(OfTenant, Base):
    """How long one process said that a version was in force for a model. Times are the database's."""

    __tablename__ = "configuration_periods"
    __table_args__ = (
        Index("ix_configuration_periods_source_kind", "source", "kind"),
        Index("ix_configuration_periods_model_began_at", "model", "began_at"),
        # Pages of changes follow both ends.
        Index("ix_configuration_periods_began_at", "began_at"),
        Index("ix_configuration_periods_last_seen_at", "last_seen_at"),
        CheckConstraint(
            "began_at <= last_seen_at AND (ended_at IS NULL OR last_seen_at <= ended_at)", name="times"
        ),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, server_default=text("gen_random_uuid()"))
    version_id: Mapped[int] = mapped_column(ForeignKey("configuration_versions.id"), index=True)
    kind: Mapped[str]  # the version's
    model: Mapped[str]  # by its served name, as in CoverageMinute
    layer: Mapped[int | None]
    source: Mapped[str]  # one process start, as in CoverageMinute
    hop: Mapped[str]  # a Hop
    began_at: Mapped[dt.datetime]  # of the first report
    last_seen_at: Mapped[dt.datetime]  # of the last one
    # Stopped, or followed by another version of the same source; None: nobody said so.
    ended_at: Mapped[dt.datetime | None]
    log_salt: Mapped[bytes | None] = mapped_column(
        BYTEA
    )  # opens the entry of its beginning, then of its end
    log_trail: Mapped[list[bytes] | None] = mapped_column(
        ARRAY(BYTEA)
    )  # the beginning's commitment, once ended
