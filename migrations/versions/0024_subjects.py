"""Keep whose data a request is, as a keyed pseudonym, and find a person's samples by it.

A column that may be empty, so nothing is rewritten, and workers and services of the revision before go on
beside it. What was stored before names nobody, and neither does what comes without a subject.
"""

import sqlalchemy as sa
from alembic import op

from migrations import concurrent_index

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

_INDEX = "ix_samples_tenant_id_subject_captured_at_id"


def upgrade() -> None:
    op.add_column("samples", sa.Column("subject", sa.Text(), nullable=True))
    concurrent_index.build(
        _INDEX, "samples", "tenant_id", "subject", "captured_at", "id", where="subject IS NOT NULL"
    )


def downgrade() -> None:
    concurrent_index.drop(_INDEX, "samples")
    op.drop_column("samples", "subject")
