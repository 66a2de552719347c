"""Add tombstones and requests for erasure, and let erasure take ids out of entries of the access log.

New tables, and a column without a value: no row is written. The access log stays append-only but for one
change, which its triggers hold to lists that become shorter, in a transaction that says so.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

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
_REFUSE_UNLESS_ERASING = """
    CREATE OR REPLACE FUNCTION access_log_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'UPDATE' AND current_setting('subtext.erasing', true) = 'on' THEN
            RETURN NULL;
        END IF;
        RAISE EXCEPTION 'rows of access_log are only ever added: % is refused', TG_OP
        USING ERRCODE = 'restrict_violation';
    END
    $$
"""
# Ids out of the two lists, an id that was asked for, and the log's own columns. The totals still say how
# many there were.
_LET_SHRINK = """
    CREATE FUNCTION access_log_let_shrink() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        may_change text[] := ARRAY['subject_ids', 'capture_ids', 'details', 'log_salt', 'log_trail'];
    BEGIN
        IF to_jsonb(NEW) - may_change <> to_jsonb(OLD) - may_change
            OR NOT NEW.subject_ids <@ OLD.subject_ids
            OR NOT NEW.capture_ids <@ OLD.capture_ids
            OR NOT NEW.details <@ OLD.details
            OR (cardinality(NEW.subject_ids), cardinality(NEW.capture_ids), NEW.details)
                = (cardinality(OLD.subject_ids), cardinality(OLD.capture_ids), OLD.details)
        THEN
            RAISE EXCEPTION 'of an entry of access_log only ids can be erased'
            USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN NEW;
    END
    $$
"""
_TRIGGER = """
    CREATE TRIGGER access_log_only_shrinks BEFORE UPDATE ON access_log
    FOR EACH ROW EXECUTE FUNCTION access_log_let_shrink()
"""
# In replication's mode too, as the other one.
_ALWAYS = "ALTER TABLE access_log ENABLE ALWAYS TRIGGER access_log_only_shrinks"


def upgrade() -> None:
    op.create_table(
        "log_tombstones",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), server_default=_TENANT, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("authority", sa.Uuid(), nullable=False),
        sa.Column("leaves", postgresql.INT8MULTIRANGE(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("log_salt", postgresql.BYTEA(), nullable=False),
        sa.CheckConstraint("reason IN ('erasure', 'retention')", name=op.f("ck_log_tombstones_reason")),
        sa.CheckConstraint("count > 0 AND NOT isempty(leaves)", name=op.f("ck_log_tombstones_count")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_log_tombstones")),
    )
    op.create_index("ix_log_tombstones_authority", "log_tombstones", ["authority"])
    op.execute(
        "CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON log_tombstones"
        " FOR EACH STATEMENT EXECUTE FUNCTION subtext_refuse_change()"
    )
    _create_erasures()
    op.add_column("access_log", sa.Column("log_trail", postgresql.ARRAY(postgresql.BYTEA()), nullable=True))
    op.execute(_LET_SHRINK)
    op.execute(_TRIGGER)
    op.execute(_ALWAYS)
    op.execute(_REFUSE_UNLESS_ERASING)


def downgrade() -> None:
    op.execute(_REFUSE)
    op.execute("DROP TRIGGER access_log_only_shrinks ON access_log")
    op.execute("DROP FUNCTION access_log_let_shrink()")
    op.drop_column("access_log", "log_trail")
    op.drop_table("erasures")
    op.drop_table("log_tombstones")  # with its trigger


def _create_erasures() -> None:
    now = sa.func.now()
    op.create_table(
        "erasures",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), server_default=_TENANT, nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.Column(
            "due_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now() + '30 days'::interval"),
            nullable=False,
        ),
        sa.Column("key_id", sa.Uuid(), nullable=False),
        sa.Column("key_name", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("identifier", sa.Text(), nullable=True),
        sa.Column("commitment", postgresql.BYTEA(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'open'"), nullable=False),
        sa.Column("counts", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("held", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("clean_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "scope IN ('request', 'capture', 'trace', 'tenant')", name=op.f("ck_erasures_scope")
        ),
        sa.CheckConstraint("state IN ('open', 'done')", name=op.f("ck_erasures_state")),
        sa.CheckConstraint(
            "(state = 'done') = (finished_at IS NOT NULL)", name=op.f("ck_erasures_finished")
        ),
        sa.CheckConstraint(
            "(identifier IS NULL) = (state = 'done' OR scope = 'tenant')",
            name=op.f("ck_erasures_identifier"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_erasures")),
    )
    op.create_index("ix_erasures_asked_at_id", "erasures", ["asked_at", "id"])
    op.create_index(
        "ix_erasures_open", "erasures", ["asked_at"], postgresql_where=sa.text("state = 'open'")
    )
