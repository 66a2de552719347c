"""What all tables share: their metadata, the types of columns, and the tenant that each row belongs to."""

import datetime as dt
import uuid
from typing import Any, Final

from sqlalchemy import DateTime, MetaData, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from service.store.tenants.scope import COLUMN_DEFAULT

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
_LAST = 1000


class Base(DeclarativeBase):
    """All tables; text is ``text`` and times carry their zone."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {  # noqa: RUF012  # SQLAlchemy reads this as a class attribute
        str: Text,
        dt.datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
    }


class OfTenant:
    """Mixed into every table of data: whose a row is.

    Nobody writes it: it is the tenant that `service.store.tenants.scope` named for the transaction. Only
    models and API keys have a foreign key to the tenants: its check would lock the tenant's one row with
    each row of an ingest, and whose anything is follows from its model.
    """

    # After a table's own columns.
    tenant_id: Mapped[uuid.UUID] = mapped_column(server_default=COLUMN_DEFAULT, sort_order=_LAST)


IS_NAMED: Final = (
    "(key_id IS NULL) <> (person IS NULL) AND (key_id IS NULL) = (key_name IS NULL)"
    " AND (person IS NULL) = (issuer IS NULL) AND (person IS NULL OR session_id IS NOT NULL)"
)
"""SQL: a row of `OfActor` names a key or a person, and not both."""


WHO: Final = "COALESCE(key_id::text, issuer || ' '::text || person)"
"""SQL: who a row of `OfActor` names, the same in whichever session; no issuer's URL has a space."""


class OfActor:
    """Mixed into tables of what somebody asked for: an API key, or a person whom an issuer named.

    A key's session names the key too. A table with it has the constraint `IS_NAMED`.
    """

    key_id: Mapped[uuid.UUID | None]
    key_name: Mapped[str | None]  # as it was then
    session_id: Mapped[uuid.UUID | None]  # None: by the key itself
    issuer: Mapped[str | None]
    person: Mapped[str | None]  # the issuer's `sub`


def values_of(row: Base) -> dict[str, Any]:
    """Return what was set or loaded of a row, by column, so that nobody else has to list its columns."""
    names = [column.key for column in row.__table__.columns]
    return {name: getattr(row, name) for name in names if name in row.__dict__}
