"""Add the evidence log: what waits for it, its leaves, nodes, checkpoints, and the salts that open entries.

New columns are without a value, so no row is written and no table is locked for longer than it takes to
note them. Rows of before are in no log.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

SALTED = ("decoders", "explanations", "concept_versions", "flags", "incident_events")
WITH_TRAIL = ("decoders", "flags")
FOR_EVER = ("log_leaves", "log_nodes", "log_checkpoints")
OF_TRANSACTION = (
    "COALESCE(NULLIF(current_setting('subtext.tenant'::text, true), ''::text)::uuid,"
    " 'cc7d071b-fe4c-56b2-8970-b2fd46ba7e52'::uuid)"
)


def upgrade() -> None:
    for table in SALTED:
        op.add_column(table, sa.Column("log_salt", postgresql.BYTEA(), nullable=True))
    for table in WITH_TRAIL:
        op.add_column(table, sa.Column("log_trail", postgresql.ARRAY(postgresql.BYTEA()), nullable=True))
    _create_pending()
    _create_tree()
    op.create_table(
        "log_checkpoints",
        _tenant(),
        sa.Column("size", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("signed_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "size", name=op.f("pk_log_checkpoints")),
    )
    _forbid_changes()


def downgrade() -> None:
    for table in ("log_pending", *FOR_EVER):
        op.drop_table(table)
    op.execute("DROP FUNCTION subtext_refuse_change()")
    for table in WITH_TRAIL:
        op.drop_column(table, "log_trail")
    for table in SALTED:
        op.drop_column(table, "log_salt")


def _tenant() -> "sa.Column[object]":
    return sa.Column("tenant_id", sa.Uuid(), server_default=sa.text(OF_TRANSACTION), nullable=False)


def _create_pending() -> None:
    op.create_table(
        "log_pending",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        _tenant(),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("commitments", postgresql.BYTEA(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.CheckConstraint("kind ~ '^[a-z_]{1,32}$'", name=op.f("ck_log_pending_kind")),
        sa.CheckConstraint(
            "octet_length(commitments) > 0 AND octet_length(commitments) % 32 = 0",
            name=op.f("ck_log_pending_commitments"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_log_pending")),
    )


def _create_tree() -> None:
    op.create_table(
        "log_leaves",
        _tenant(),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("commitment", postgresql.BYTEA(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "seq", name=op.f("pk_log_leaves")),
        sa.UniqueConstraint("tenant_id", "commitment", name=op.f("uq_log_leaves_tenant_id_commitment")),
    )
    op.create_table(
        "log_nodes",
        _tenant(),
        sa.Column("level", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("hash", postgresql.BYTEA(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "level", "number", name=op.f("pk_log_nodes")),
    )


def _forbid_changes() -> None:
    """Refuse every change of what is in the log, the owner's too: who wants one has to drop the trigger."""
    op.execute(
        """
        CREATE FUNCTION subtext_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION '%: rows are only ever added', TG_TABLE_NAME
                USING ERRCODE = 'restrict_violation',
                      HINT = 'an entry holds a salted commitment; erase the row and its salt instead';
        END $$
        """
    )
    for table in FOR_EVER:
        op.execute(
            f"CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION subtext_refuse_change()"
        )
