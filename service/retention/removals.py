"""What retention runs removed of a period, so that it is not taken for a period that nobody read."""

import datetime as dt
import uuid
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.store.retention.tables import RetentionRun
from service.store.tables import Model


class Removal(NamedTuple):
    """What one run removed."""

    run: uuid.UUID
    model: str
    explanations: int
    first_captured_at: dt.datetime
    last_captured_at: dt.datetime
    is_finished: bool


def list_removals(
    session: Session, start: dt.datetime, end: dt.datetime, model: str | None
) -> Sequence[Removal]:
    """Return the runs that removed something captured between, the oldest first; ``model`` None: of all."""
    query = (
        select(RetentionRun, Model.name)
        .join(Model, Model.id == RetentionRun.model_id)
        .where(RetentionRun.first_captured_at < end, RetentionRun.last_captured_at >= start)
        .order_by(RetentionRun.started_at, RetentionRun.id)
    )
    if model is not None:
        query = query.where(Model.name == model)
    found = []
    for row, name in session.execute(query):
        if row.first_captured_at is not None and row.last_captured_at is not None:
            span = (row.first_captured_at, row.last_captured_at, row.finished_at is not None)
            found.append(Removal(row.id, name, int(row.removed.get("explanations", 0)), *span))
    return found
