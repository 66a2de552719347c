"""Find the samples of a trace.

The index is built beside running workers: it locks out no writer, but waits for every transaction that
is open, which is why it has no timeout. One that was interrupted leaves an index that is not valid, so
the next attempt starts by dropping that.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_INDEX = "ix_samples_trace_id"
_TIMEOUTS = ("lock_timeout", "statement_timeout")


def upgrade() -> None:
    with op.get_context().autocommit_block():
        bind = op.get_bind()
        before = {name: bind.exec_driver_sql(f"SHOW {name}").scalar_one() for name in _TIMEOUTS}
        for name in _TIMEOUTS:
            op.execute(f"SET {name} = 0")
        op.drop_index(_INDEX, "samples", postgresql_concurrently=True, if_exists=True)
        op.create_index(
            _INDEX,
            "samples",
            ["trace_id"],
            postgresql_concurrently=True,
            postgresql_where=sa.text("trace_id IS NOT NULL"),
        )
        for name, value in before.items():
            op.execute(f"SET {name} = '{value}'")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index(_INDEX, "samples", postgresql_concurrently=True, if_exists=True)
