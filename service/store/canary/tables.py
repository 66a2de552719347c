"""The table of the canaries' runs."""

import datetime as dt
import uuid

from sqlalchemy import CheckConstraint, Index, func
from sqlalchemy.orm import Mapped, mapped_column

from service.store.base import Base, OfTenant


class CanaryRun(OfTenant, Base):
    """One canary with its result, as its runner saw it: evidence of the pipeline, never of traffic.

    Who may insert here can make a recall look better than it is; `CanaryReading` and `CanaryFlag`, which
    only workers write, hold what was read of those that were not lost.
    """

    __tablename__ = "canary_runs"
    __table_args__ = (
        CheckConstraint("kind IN ('positive', 'negative')", name="kind"),
        CheckConstraint("outcome IN ('flagged', 'not_flagged', 'lost')", name="outcome"),
        CheckConstraint("(outcome = 'lost') = (lost_at IS NOT NULL)", name="lost_at"),
        Index("ix_canary_runs_ended_at", "ended_at"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)  # drawn by the runner: it records a run once
    model: Mapped[str]  # by its served name: one that no decoder read yet has no row of its own
    concept: Mapped[str]  # that the prompt is for
    kind: Mapped[str]  # positive: must be flagged; negative: must not
    outcome: Mapped[str]  # flagged | not_flagged | lost
    lost_at: Mapped[str | None]  # the hop that it did not pass
    ended_at: Mapped[dt.datetime] = mapped_column(server_default=func.now())
