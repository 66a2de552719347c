"""Keep who read which text, when and why, in a table to which rows are only ever added.

One new table, so no other is locked. Its trigger refuses every change to everybody, the table's owner too;
only whoever may alter the table can take the trigger away.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

# As service.store.identity derives it for the tenant "default".
_TENANT = sa.text(
    "COALESCE(NULLIF(current_setting('subtext.tenant'::text, true), ''::text)::uuid,"
    " 'cc7d071b-fe4c-56b2-8970-b2fd46ba7e52'::uuid)"
)
_REFUSE = """
    CREATE OR REPLACE FUNCTION access_log_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'rows of access_log are only ever added: % is refused', TG_OP
        USING ERRCODE = 'restrict_violation';
    END
    $$
"""
# For each statement, because TRUNCATE has no rows and a change of no row is refused as well.
_TRIGGER = """
    CREATE TRIGGER access_log_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON access_log
    FOR EACH STATEMENT EXECUTE FUNCTION access_log_refuse_change()
"""
# In replication's mode too, which an administrator can give himself.
_ALWAYS = "ALTER TABLE access_log ENABLE ALWAYS TRIGGER access_log_is_append_only"


def upgrade() -> None:
    none, no_ids = sa.text("0"), sa.text("'{}'::uuid[]")
    ids = postgresql.ARRAY(sa.Uuid())
    op.create_table(
        "access_log",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), server_default=_TENANT, nullable=False),
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column(
            "at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("key_id", sa.Uuid(), nullable=True),
        sa.Column("key_name", sa.Text(), nullable=True),
        sa.Column("database_login", sa.Text(), server_default=sa.text("SESSION_USER"), nullable=False),
        sa.Column("os_user", sa.Text(), nullable=True),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("operation", sa.Text(), nullable=False),
        sa.Column("subject_kind", sa.Text(), nullable=True),
        sa.Column("subject_ids", ids, server_default=no_ids, nullable=False),
        sa.Column("subjects_total", sa.Integer(), server_default=none, nullable=False),
        sa.Column("capture_ids", ids, server_default=no_ids, nullable=False),
        sa.Column("captures_total", sa.Integer(), server_default=none, nullable=False),
        sa.Column("details", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=True),
        sa.Column("purpose_note", sa.Text(), nullable=True),
        sa.Column("status", sa.SmallInteger(), nullable=True),
        sa.Column("result", sa.Text(), nullable=False),
        sa.Column("suppressed", sa.Integer(), server_default=none, nullable=False),
        sa.Column("log_salt", postgresql.BYTEA(), nullable=True),
        sa.CheckConstraint(
            "action IN ('read_text', 'write', 'deny', 'export', 'key_change', 'configuration_change',"
            " 'log_read')",
            name=op.f("ck_access_log_action"),
        ),
        sa.CheckConstraint(
            "result IN ('done', 'missing_scope', 'revoked_key', 'expired_key')",
            name=op.f("ck_access_log_result"),
        ),
        sa.CheckConstraint(
            "subjects_total >= cardinality(subject_ids)", name=op.f("ck_access_log_subjects")
        ),
        sa.CheckConstraint(
            "captures_total >= cardinality(capture_ids)", name=op.f("ck_access_log_captures")
        ),
        sa.CheckConstraint("suppressed >= 0", name=op.f("ck_access_log_suppressed")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_access_log")),
        sa.UniqueConstraint("seq", name=op.f("uq_access_log_seq")),
    )
    op.create_index("ix_access_log_at_id", "access_log", ["at", "id"])
    op.create_index("ix_access_log_key_id_at_id", "access_log", ["key_id", "at", "id"])
    op.create_index("ix_access_log_subject_ids", "access_log", ["subject_ids"], postgresql_using="gin")
    op.create_index("ix_access_log_capture_ids", "access_log", ["capture_ids"], postgresql_using="gin")
    op.execute(_REFUSE)
    op.execute(_TRIGGER)
    op.execute(_ALWAYS)


def downgrade() -> None:
    op.drop_table("access_log")  # with its trigger
    op.execute("DROP FUNCTION access_log_refuse_change()")
