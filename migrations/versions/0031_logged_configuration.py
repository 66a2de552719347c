"""Let the evidence log commit to versions of configurations, what they hold, and their periods.

New columns are without a value, so no row is written again. Rows of before are in no log.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from migrations import locks

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None

_TABLES = ("configuration_versions", "configuration_contents", "configuration_periods")
# First and in the order in which workers take them: in another, a worker and the migrator could each wait
# for what the other has.


def upgrade() -> None:
    locks.lock(*_TABLES)
    for table in _TABLES:
        op.add_column(table, sa.Column("log_salt", postgresql.BYTEA(), nullable=True))
    op.add_column(
        "configuration_periods", sa.Column("log_trail", postgresql.ARRAY(postgresql.BYTEA()), nullable=True)
    )


def downgrade() -> None:
    locks.lock(*_TABLES)
    op.drop_column("configuration_periods", "log_trail")
    for table in reversed(_TABLES):
        op.drop_column(table, "log_salt")
