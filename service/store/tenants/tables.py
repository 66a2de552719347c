"""The tenants."""

import datetime as dt
import uuid
from typing import Final

from sqlalchemy import CheckConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from service.store.base import Base

NAME_PATTERN = "^[a-z0-9][a-z0-9-]{0,62}$"
OBJECTION_HOURS: Final = range(1, 337)
"""Two weeks at most: there has to be time left in the month that an erasure may take."""


class Tenant(Base):
    """Somebody whose models are audited, and whose rows nobody else reads."""

    __tablename__ = "tenants"
    __table_args__ = (
        CheckConstraint(f"name ~ '{NAME_PATTERN}'", name="name"),
        CheckConstraint("objection_hours BETWEEN 1 AND 336", name="objection_hours"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)  # identity.tenant_id
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[dt.datetime] = mapped_column(server_default=func.now())
    objection_hours: Mapped[int] = mapped_column(server_default=text("72"))  # that a removal waits
