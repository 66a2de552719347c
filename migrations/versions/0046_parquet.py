"""Let an export say in which format its rows are. One that was asked for before has lines of JSON."""

from alembic import op

revision = "0046"
down_revision = "0045"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE exports ADD COLUMN format text NOT NULL DEFAULT 'ndjson'")
    op.execute(
        "ALTER TABLE exports ADD CONSTRAINT ck_exports_format CHECK (format IN ('ndjson', 'parquet'))"
    )


def downgrade() -> None:
    op.execute("ALTER TABLE exports DROP CONSTRAINT ck_exports_format")
    op.execute("ALTER TABLE exports DROP COLUMN format")
