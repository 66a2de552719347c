"""Periods of retention, legal holds, runs and certificates.

All but runs are only ever added: triggers refuse every change and deletion, to the tables' owner too.
"""

import datetime as dt
import uuid
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Computed,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA
from sqlalchemy.orm import Mapped, mapped_column

from service.store.base import IS_NAMED, WHO, Base, OfActor, OfTenant


class Records(StrEnum):
    """Records of the audit itself, each with a period of its own."""

    ACCESS_LOG = "access_log"
    CANARIES = "canaries"  # what was read of them, and their runs
    WEBHOOKS = "webhooks"  # messages and their deliveries


_RECORDS: Final = ", ".join(f"'{one}'" for one in Records)


class LiftStep(StrEnum):
    """What somebody did to end a hold."""

    ASKED = "asked"
    CONFIRMED = "confirmed"


class RetentionVersion(OfActor, OfTenant, Base):
    """For how long rows of a tenant, or of one of its models, are kept from some time on.

    Of a tenant and of a model the version that came into force last counts, and a model's own before its
    tenant's. A later one is another row. Records that are no readings have versions of their own.
    """

    __tablename__ = "retention_versions"
    __table_args__ = (
        CheckConstraint(
            "retention_class IN ('ai_act', 'hipaa', 'minimal', 'custom')", name="retention_class"
        ),
        # As service.retention.classes has them: nobody sets another by SQL.
        CheckConstraint(
            "(retention_class <> 'ai_act' OR COALESCE(floor_days, 0) >= 183)"
            " AND (retention_class <> 'hipaa' OR COALESCE(floor_days, 0) >= 2192)"
            " AND (retention_class <> 'minimal' OR COALESCE(ceiling_days, 31) <= 30)",
            name="bounds",
        ),
        CheckConstraint(
            "period_days >= 1 AND period_days >= COALESCE(floor_days, 1) OR period_days IS NULL",
            name="floor",
        ),
        CheckConstraint(
            "ceiling_days IS NULL OR COALESCE(period_days <= ceiling_days, false)", name="ceiling"
        ),
        CheckConstraint("in_force_from >= set_at", name="in_force_from"),  # nothing is set for the past
        CheckConstraint(f"records IS NULL OR records IN ({_RECORDS}) AND model_id IS NULL", name="records"),
        CheckConstraint(IS_NAMED, name="named"),
        UniqueConstraint("id", "tenant_id", "asked_by"),  # for who confirms it
        # Pages follow set_at, which never changes.
        Index("ix_retention_versions_tenant_id_set_at_id", "tenant_id", "set_at", "id"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)  # random
    model_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("models.id"))  # None: all of the tenant
    records: Mapped[str | None]  # a Records; None: readings, and what stands on them
    retention_class: Mapped[str]  # a RetentionClass
    floor_days: Mapped[int | None]
    ceiling_days: Mapped[int | None]
    period_days: Mapped[int | None]  # None: rows are kept for good
    in_force_from: Mapped[dt.datetime] = mapped_column(server_default=func.now())
    reason: Mapped[str]
    key_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("api_keys.id"))
    set_at: Mapped[dt.datetime] = mapped_column(server_default=func.now())
    log_salt: Mapped[bytes | None] = mapped_column(BYTEA)  # opens the log's entry; None: in no log
    objectable_until: Mapped[dt.datetime | None]  # set by a trigger; None: it removes nothing sooner
    asked_by: Mapped[str | None] = mapped_column(Computed(WHO, persisted=True))


class Decision(StrEnum):
    """What somebody says to a removal that waits."""

    CONFIRMED = "confirmed"  # it need not wait any longer
    OBJECTED = "objected"  # it is never carried out


class RemovalDecision(OfActor, OfTenant, Base):
    """What was said to an erasure or a period that waits: once, and while it waits.

    Constraints see to it that nobody confirms what he asked for himself, a trigger that it is in time.
    """

    __tablename__ = "removal_decisions"
    __table_args__ = (
        CheckConstraint("num_nonnulls(erasure_id, version_id) = 1", name="of_one"),
        CheckConstraint("decision IN ('confirmed', 'objected')", name="decision"),
        CheckConstraint("decision <> 'confirmed' OR COALESCE(decided_by <> asked_by, false)", name="other"),
        CheckConstraint(IS_NAMED, name="named"),
        # Who asked is part of the key, so that nobody says that it was somebody else.
        ForeignKeyConstraint(
            ["erasure_id", "tenant_id", "asked_by"],
            ["erasures.id", "erasures.tenant_id", "erasures.asked_by"],
            name="fk_removal_decisions_erasure_id_erasures",
        ),
        ForeignKeyConstraint(
            ["version_id", "tenant_id", "asked_by"],
            ["retention_versions.id", "retention_versions.tenant_id", "retention_versions.asked_by"],
            name="fk_removal_decisions_version_id_retention_versions",
        ),
        UniqueConstraint("erasure_id"),
        UniqueConstraint("version_id"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)  # random
    erasure_id: Mapped[uuid.UUID | None]
    version_id: Mapped[uuid.UUID | None]  # of a retention version
    decision: Mapped[str]  # a Decision
    asked_by: Mapped[str]
    decided_by: Mapped[str | None] = mapped_column(Computed(WHO, persisted=True))
    reason: Mapped[str]
    key_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("api_keys.id"))
    at: Mapped[dt.datetime] = mapped_column(server_default=func.now())
    log_salt: Mapped[bytes | None] = mapped_column(BYTEA)  # opens the log's entry; None: in no log


class LegalHold(OfActor, OfTenant, Base):
    """What neither retention nor an erasure may remove, until two lift it who are not the same.

    It covers what fits every criterion that is set; NULL fits all. All but the period are of captures: one
    that fits is covered whole.
    """

    __tablename__ = "legal_holds"
    __table_args__ = (
        CheckConstraint(
            "num_nonnulls(model_id, captured_from, captured_to, request_names, capture_id, trace_id,"
            " concept, subject) > 0",
            name="scope",
        ),
        CheckConstraint("captured_from < captured_to", name="period"),
        CheckConstraint(IS_NAMED, name="named"),
        UniqueConstraint("id", "tenant_id"),  # for lifts, which are of the hold's own tenant
        # Pages follow placed_at, which never changes.
        Index("ix_legal_holds_tenant_id_placed_at_id", "tenant_id", "placed_at", "id"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)  # random: a hold is placed once
    model_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("models.id"))
    captured_from: Mapped[dt.datetime | None]  # inclusive
    captured_to: Mapped[dt.datetime | None]  # exclusive
    # As RequestName has it; two where the id was stored before names were bounded.
    request_names: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    capture_id: Mapped[uuid.UUID | None]
    trace_id: Mapped[str | None]
    concept: Mapped[str | None]  # of a flag or of a match
    subject: Mapped[str | None]  # a subject key
    reason: Mapped[str]
    reference: Mapped[str | None]  # a case's number
    key_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("api_keys.id"))
    placed_at: Mapped[dt.datetime] = mapped_column(server_default=func.now())
    log_salt: Mapped[bytes | None] = mapped_column(BYTEA)  # opens the log's entry; None: in no log


class LegalHoldLift(OfActor, OfTenant, Base):
    """One of the two steps that end a hold: one key or person asks, and another one confirms.

    Constraints see to both: the second step needs the first one's row, and nobody takes two steps.
    """

    __tablename__ = "legal_hold_lifts"
    __table_args__ = (
        CheckConstraint(
            "(step = 'asked' AND step_before IS NULL)"
            " OR (step = 'confirmed' AND step_before IS NOT DISTINCT FROM 'asked')",
            name="step",
        ),
        UniqueConstraint("hold_id", "step"),
        CheckConstraint(IS_NAMED, name="named"),
        # One key takes one step, in whichever session, and so does one person.
        UniqueConstraint("hold_id", "key_id"),
        UniqueConstraint("hold_id", "issuer", "person"),
        ForeignKeyConstraint(
            ["hold_id", "tenant_id"],
            ["legal_holds.id", "legal_holds.tenant_id"],
            name="fk_legal_hold_lifts_hold_id_legal_holds",
        ),
        ForeignKeyConstraint(
            ["hold_id", "step_before"],
            ["legal_hold_lifts.hold_id", "legal_hold_lifts.step"],
            name="fk_legal_hold_lifts_step_before_legal_hold_lifts",
        ),
        Index("ix_legal_hold_lifts_confirmed", "hold_id", postgresql_where=text("step = 'confirmed'")),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)  # random
    hold_id: Mapped[uuid.UUID]
    step: Mapped[str]  # a LiftStep
    step_before: Mapped[str | None]  # of the second: that it follows the first
    reason: Mapped[str]
    key_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("api_keys.id"))
    at: Mapped[dt.datetime] = mapped_column(server_default=func.now())
    log_salt: Mapped[bytes | None] = mapped_column(BYTEA)  # opens the log's entry; None: in no log


class RetentionRun(OfTenant, Base):
    """One removal of what a model, or records, have beyond their period; resumed until it is finished."""

    __tablename__ = "retention_runs"
    __table_args__ = (
        Index("ix_retention_runs_tenant_id_started_at_id", "tenant_id", "started_at", "id"),
        CheckConstraint(f"num_nonnulls(model_id, records) = 1 AND records IN ({_RECORDS})", name="of_one"),
        # One model is run once at a time, and so are records of one kind.
        Index(
            "uq_retention_runs_unfinished",
            "model_id",
            unique=True,
            postgresql_where=text("finished_at IS NULL"),
        ),
        Index(
            "uq_retention_runs_unfinished_records",
            "tenant_id",
            "records",
            unique=True,
            postgresql_where=text("finished_at IS NULL AND records IS NOT NULL"),
        ),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)  # random; its tombstones name it
    model_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("models.id"))  # None: of records
    records: Mapped[str | None]  # a Records
    version_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("retention_versions.id"))
    captured_before: Mapped[dt.datetime]  # exclusive
    checkpoint_size: Mapped[int | None] = mapped_column(BigInteger)  # when it began; None: none was signed
    # Added to in the transactions that remove: what they say is gone whatever became of the run.
    removed: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    first_captured_at: Mapped[dt.datetime | None]
    last_captured_at: Mapped[dt.datetime | None]
    started_at: Mapped[dt.datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[dt.datetime | None]


class DeletionCertificate(OfTenant, Base):
    """What was removed at once and by what right. The log commits to it, which proves it."""

    __tablename__ = "deletion_certificates"
    __table_args__ = (
        CheckConstraint("reason IN ('erasure', 'retention')", name="reason"),
        UniqueConstraint("authority"),
        Index("ix_deletion_certificates_tenant_id_issued_at_id", "tenant_id", "issued_at", "id"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)  # random
    reason: Mapped[str]  # service.evidence.tombstones.Reason
    authority: Mapped[uuid.UUID]  # the retention run or erasure request, which its tombstones name
    model_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("models.id"))  # None: of several or all
    document: Mapped[dict[str, Any]]  # codes, ids, times and figures; nothing of what was removed
    issued_at: Mapped[dt.datetime] = mapped_column(server_default=func.now())
    log_salt: Mapped[bytes | None] = mapped_column(BYTEA)  # opens the log's entry
