"""Periods of retention as answered, and as somebody sets them."""

import datetime as dt
import uuid
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from service.api.parameters import Name, Note, Time
from service.api.schemas.answer import Answer, Attribution
from service.api.schemas.decision import RemovalDecision
from service.api.vocabulary import RetainedRecords, RetentionClass
from service.retention import classes
from service.retention.periods import NewPeriod, View
from service.store.retention.tables import Records

_MOST_DAYS = 36_525
Days = Annotated[int, Field(ge=1, le=_MOST_DAYS)]


class AskedPeriod(BaseModel):
    """For how long rows shall be kept from some time on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Name | None = Field(
        default=None,
        description="Served model name; null: all of the tenant's that have none of their own.",
    )
    records: RetainedRecords | None = Field(
        default=None,
        description="Null: readings, and what stands on them. `access_log`: who read and did what, kept "
        "as long as what it tells about; `canaries`: their readings, flags and runs; `webhooks`: messages "
        "and their deliveries, but for those that may yet be sent. None of them is of a model.",
    )
    retention_class: RetentionClass = Field(
        description="`ai_act`: at least 183 days; `hipaa`: at least "
        "2,192; `minimal`: at most 30; `custom`: as `floor_days` and `ceiling_days` say."
    )
    period_days: Days | None = Field(
        description="Days after their capture, or of records after their time; null: for good."
    )
    floor_days: Days | None = Field(
        default=None, description="At least so many; more than the class wants."
    )
    ceiling_days: Days | None = Field(
        default=None, description="At most so many; fewer than the class allows."
    )
    in_force_from: Time | None = Field(default=None, description="A time to come; null: from now on.")
    reason: Note = Field(description="Why. It cannot be changed later.")

    def stored(self) -> NewPeriod:
        """Return it as the store takes it."""
        return NewPeriod(
            model=self.model,
            records=None if self.records is None else Records(self.records),
            retention_class=classes.RetentionClass(self.retention_class),
            period_days=self.period_days,
            floor_days=self.floor_days,
            ceiling_days=self.ceiling_days,
            in_force_from=self.in_force_from,
            reason=self.reason,
        )


class RetentionVersion(Attribution):
    """For how long rows are kept from some time on, and who set it. It never changes; later ones follow."""

    id: uuid.UUID
    model: str | None = Field(description="Null: of all models of the tenant that have none of their own.")
    records: RetainedRecords | None = Field(description="Of which records; null: of readings.")
    retention_class: RetentionClass
    floor_days: int | None = Field(description="Null: none.")
    ceiling_days: int | None = Field(description="Null: none.")
    period_days: int | None = Field(description="Days after their capture; null: for good.")
    in_force_from: dt.datetime = Field(description="As it was asked, UTC.")
    objectable_until: dt.datetime | None = Field(
        description="By a version that waits nothing is removed before, unless somebody else confirms it. "
        "Null: it is in force as asked, for no row goes by it that would have stayed."
    )
    decision: RemovalDecision | None = Field(
        description="What was said while it waited; null: nothing was. An `objected` one is never in force."
    )
    reason: str
    set_at: dt.datetime = Field(description="UTC; the order of all versions.")


class RetentionInForce(Answer):
    """What counted at a time. A model without a version of its own has the tenant's; records have none."""

    as_of: dt.datetime = Field(description="UTC.")
    items: list[RetentionVersion] = Field(
        description="The tenant's first, then those of records, then those of models, by name."
    )


class RetentionPage(Answer):
    """One page of all versions, the one that was set last first."""

    items: list[RetentionVersion]
    next_cursor: str | None = Field(description="Pass it as `cursor` for the next page; null on the last.")


def retention_version(view: View) -> RetentionVersion:
    """Return the answer for one version."""
    row = view.version
    same = (
        "id",
        "records",
        "retention_class",
        "floor_days",
        "ceiling_days",
        "period_days",
        "in_force_from",
    )
    own = {name: getattr(row, name) for name in (*same, "reason", "set_at", "objectable_until")}
    decision = None if view.decision is None else RemovalDecision.model_validate(view.decision)
    return RetentionVersion(model=view.model, decision=decision, **own, **RetentionVersion.names(row))
