"""Let people ask for what only keys could: legal holds, periods of retention, erasures and exports.

New columns are null in rows of before, and no row is written again. Conditions are checked for rows that
are added first, then for all without a lock that stops anybody.
"""

from alembic import op

from migrations import locks

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None

# In the order in which the service takes them.
_TABLES = ("legal_holds", "legal_hold_lifts", "retention_versions", "erasures", "exports")
_COLUMNS = (("session_id", "uuid"), ("issuer", "text"), ("person", "text"))
_IS_NAMED = (
    "(key_id IS NULL) <> (person IS NULL) AND (key_id IS NULL) = (key_name IS NULL)"
    " AND (person IS NULL) = (issuer IS NULL) AND (person IS NULL OR session_id IS NOT NULL)"
)
_ONE_STEP = "uq_legal_hold_lifts_hold_id_issuer_person"


def upgrade() -> None:
    locks.lock(*_TABLES)
    for table in _TABLES:
        for column, kind in _COLUMNS:
            op.execute(f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {column} {kind}")
        for column in ("key_id", "key_name"):
            op.execute(f"ALTER TABLE {table} ALTER COLUMN {column} DROP NOT NULL")
        op.execute(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS ck_{table}_named")
        op.execute(f"ALTER TABLE {table} ADD CONSTRAINT ck_{table}_named CHECK ({_IS_NAMED}) NOT VALID")
    # Two rows for each hold that is lifted: people place and lift them one by one.
    op.execute(f"ALTER TABLE legal_hold_lifts DROP CONSTRAINT IF EXISTS {_ONE_STEP}")
    op.execute(f"ALTER TABLE legal_hold_lifts ADD CONSTRAINT {_ONE_STEP} UNIQUE (hold_id, issuer, person)")
    with op.get_context().autocommit_block():
        for table in _TABLES:
            op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT ck_{table}_named")


def downgrade() -> None:
    # Where a person asked for something this is refused: the schema of before cannot name him.
    locks.lock(*_TABLES)
    op.drop_constraint(_ONE_STEP, "legal_hold_lifts")
    for table in reversed(_TABLES):
        op.drop_constraint(op.f(f"ck_{table}_named"), table)
        for column in ("key_id", "key_name"):
            op.alter_column(table, column, nullable=False)
        for column, _ in reversed(_COLUMNS):
            op.drop_column(table, column)
