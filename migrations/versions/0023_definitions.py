"""Keep by which definition a match was made, and how many positions of a canary must be read.

Both columns are null for rows of before, and no row is written again.
"""

import sqlalchemy as sa
from alembic import op

from migrations import locks

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

# Both first and in the order in which workers take them: in another, a worker and the migrator could each
# wait for what the other has.
_TABLES = ("concept_matches", "canary_readings")


def upgrade() -> None:
    locks.lock(*_TABLES)
    op.add_column("concept_matches", sa.Column("concept_digest", sa.Text(), nullable=True))
    op.add_column("canary_readings", sa.Column("positions_needed", sa.Integer(), nullable=True))


def downgrade() -> None:
    locks.lock(*_TABLES)
    op.drop_column("canary_readings", "positions_needed")
    op.drop_column("concept_matches", "concept_digest")
