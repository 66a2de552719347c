"""Find the samples of a capture.

The index is built beside running workers: it locks out no writer, but waits for every transaction that
is open. Time limits are set within transactions, so none holds here. One that was interrupted leaves an
index that is not valid, so the next attempt starts by dropping that.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_INDEX = "ix_samples_capture_id"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index(_INDEX, "samples", postgresql_concurrently=True, if_exists=True)
        op.create_index(
            _INDEX,
            "samples",
            ["capture_id"],
            postgresql_concurrently=True,
            postgresql_where=sa.text("capture_id IS NOT NULL"),
        )


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index(_INDEX, "samples", postgresql_concurrently=True, if_exists=True)
