"""Indexes that are built and dropped beside running workers.

No writer is locked out, but the build waits for every transaction that is open. Time limits are set within
transactions, so none holds here.
"""

import sqlalchemy as sa
from alembic import op


def build(name: str, table: str, column: str, *then: str) -> None:
    """Index the column's values where there is one, and within equal ones the columns after it.

    A build that was interrupted leaves an index that is not valid, so the next attempt drops that first.
    """
    with op.get_context().autocommit_block():
        op.drop_index(name, table, postgresql_concurrently=True, if_exists=True)
        op.create_index(
            name,
            table,
            [column, *then],
            postgresql_concurrently=True,
            postgresql_where=sa.text(f"{column} IS NOT NULL"),
        )


def drop(name: str, table: str) -> None:
    """Drop the index if it is there."""
    with op.get_context().autocommit_block():
        op.drop_index(name, table, postgresql_concurrently=True, if_exists=True)
