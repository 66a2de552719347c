"""Keep which half of a request an engine served, where its prompt and its answer pass two.

A column that may be empty, so nothing is rewritten, and workers and services of the revision before go on
beside it. What was stored before tells nothing, like what one engine served alone.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("samples", sa.Column("role", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("samples", "role")
