"""Indexes that are built and dropped beside running workers.

No writer is locked out, but the build waits for every transaction that is open. Time limits are set within
transactions, so none holds here.
"""

from typing import Final

import sqlalchemy as sa
from alembic import op

_HAS_VALUE: Final = "has value"


def build(
    name: str,
    table: str,
    column: str,
    *then: str,
    where: str | None = _HAS_VALUE,
    unique: bool = False,
) -> None:
    """Index the column's values where there is one, and within equal ones the columns after it.

    ``where`` is another condition, None for every row; ``unique``: no two rows have the same values.
    A build that was interrupted leaves an index that is not valid, so the next attempt drops that first.
    """
    condition = f"{column} IS NOT NULL" if where == _HAS_VALUE else where
    with op.get_context().autocommit_block():
        op.drop_index(name, table, postgresql_concurrently=True, if_exists=True)
        op.create_index(
            name,
            table,
            [column, *then],
            unique=unique,
            postgresql_concurrently=True,
            postgresql_where=None if condition is None else sa.text(condition),
        )


def drop(name: str, table: str) -> None:
    """Drop the index if it is there."""
    with op.get_context().autocommit_block():
        op.drop_index(name, table, postgresql_concurrently=True, if_exists=True)
