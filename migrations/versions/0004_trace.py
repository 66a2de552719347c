"""Keep the trace and the span that a request says it belongs to.

Two columns that may be empty, so nothing is rewritten, and workers and services of the revision before
go on beside it. What was stored before has no trace.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for column in ("trace_id", "span_id"):
        op.add_column("samples", sa.Column(column, sa.Text(), nullable=True))


def downgrade() -> None:
    for column in ("span_id", "trace_id"):
        op.drop_column("samples", column)
