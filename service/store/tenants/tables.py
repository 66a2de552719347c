"""The tenants."""

import datetime as dt
import uuid

from sqlalchemy import CheckConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from service.store.base import Base

NAME_PATTERN = "^[a-z0-9][a-z0-9-]{0,62}$"


class Tenant(Base):
    """Somebody whose models are audited, and whose rows nobody else reads."""

    __tablename__ = "tenants"
    __table_args__ = (CheckConstraint(f"name ~ '{NAME_PATTERN}'", name="name"),)

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)  # identity.tenant_id
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[dt.datetime] = mapped_column(server_default=func.now())
