"""Keep what became of each canary: recall over any period needs the concept that each was sent for.

One table of its own, so no other is locked.
"""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

# The tenant that a transaction names, else the one of stores of before there were tenants.
_TENANT = (
    "COALESCE(NULLIF(current_setting('subtext.tenant', true), '')::uuid,"
    " 'cc7d071b-fe4c-56b2-8970-b2fd46ba7e52'::uuid)"
)


def upgrade() -> None:
    op.create_table(
        "canary_runs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False, server_default=sa.text(_TENANT)),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("concept", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("lost_at", sa.Text(), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.CheckConstraint("kind IN ('positive', 'negative')", name=op.f("ck_canary_runs_kind")),
        sa.CheckConstraint(
            "outcome IN ('flagged', 'not_flagged', 'lost')", name=op.f("ck_canary_runs_outcome")
        ),
        sa.CheckConstraint(
            "(outcome = 'lost') = (lost_at IS NOT NULL)", name=op.f("ck_canary_runs_lost_at")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_canary_runs")),
    )
    op.create_index("ix_canary_runs_ended_at", "canary_runs", ["ended_at"])


def downgrade() -> None:
    op.drop_table("canary_runs")
