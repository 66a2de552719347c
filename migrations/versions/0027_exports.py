"""Keep what was asked to be exported, and a queue of jobs in a schema of its own.

No table that is there is locked. The queue's tables have no tenant and are nobody's who reads or writes
rows: in a schema of their own neither default privileges nor row-level security nor whoever walks the
tables of the store meet them. `subtext migrate` grants them to the keeper.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from migrations.job_queue import SQL

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

_TENANT = (
    "COALESCE(NULLIF(current_setting('subtext.tenant', true), '')::uuid,"
    " 'cc7d071b-fe4c-56b2-8970-b2fd46ba7e52'::uuid)"
)
# With its owner's rights, so that nobody who may ask for an export needs any right on the queue.
_DEFER = """
CREATE FUNCTION defer_export() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = subtext_jobs, pg_temp AS $$
BEGIN
    PERFORM procrastinate_defer_jobs_v1(ARRAY[ROW(
        'subtext', 'make_export', 0, NULL, NULL, jsonb_build_object('export', NEW.id), NULL
    )::procrastinate_job_to_defer_v1]);
    RETURN NULL;
END;
$$
"""


def upgrade() -> None:
    op.create_table(
        "exports",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False, server_default=sa.text("'waiting'")),
        sa.Column("kinds", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("of_model", sa.Text(), nullable=True),
        sa.Column("models", postgresql.ARRAY(sa.Text()), nullable=True),
        sa.Column("period_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("period_end", sa.DateTime(timezone=True), nullable=False),
        sa.Column("with_text", sa.Boolean(), nullable=False),
        sa.Column("earlier_size", sa.BigInteger(), nullable=True),
        sa.Column("key_id", sa.Uuid(), nullable=False),
        sa.Column("key_name", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=True),
        sa.Column("purpose_note", sa.Text(), nullable=True),
        sa.Column(
            "requested_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")
        ),
        sa.Column("attempts", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("bytes", sa.BigInteger(), nullable=True),
        sa.Column("sha256", sa.Text(), nullable=True),
        sa.Column("rows", sa.BigInteger(), nullable=True),
        sa.Column("withheld", sa.BigInteger(), nullable=True),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.Column("tenant_id", sa.Uuid(), nullable=False, server_default=sa.text(_TENANT)),
        sa.CheckConstraint(
            "state IN ('waiting', 'running', 'ready', 'failed', 'expired', 'erased')",
            name=op.f("ck_exports_state"),
        ),
        sa.CheckConstraint("period_start < period_end", name=op.f("ck_exports_period")),
        sa.CheckConstraint(
            "state <> 'ready' OR (bytes IS NOT NULL AND sha256 IS NOT NULL AND expires_at IS NOT NULL)",
            name=op.f("ck_exports_ready"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_exports")),
    )
    op.create_index("ix_exports_requested_at_id", "exports", ["requested_at", "id"])
    op.execute("CREATE SCHEMA subtext_jobs")
    _create_queue()
    op.execute(_DEFER)
    op.execute(
        "CREATE TRIGGER defer_export AFTER INSERT ON exports FOR EACH ROW EXECUTE FUNCTION defer_export()"
    )


def _create_queue() -> None:
    # Its names are unqualified, and Alembic's own are looked up behind this in the same transaction.
    before = op.get_bind().execute(sa.text("SELECT current_setting('search_path')")).scalar_one()
    op.execute("SET LOCAL search_path = subtext_jobs")
    # By the driver itself: many statements at once, with no parameters that a percent sign could be of.
    op.get_bind().connection.cursor().execute(SQL)
    op.get_bind().execute(sa.text("SELECT set_config('search_path', :before, true)"), {"before": before})


def downgrade() -> None:
    op.execute("DROP SCHEMA subtext_jobs CASCADE")
    op.drop_table("exports")
    op.execute("DROP FUNCTION defer_export()")
