"""Say of every row whose it is: one tenant `default` for all that was there before.

The default of `tenant_id` is stable, so no row is touched and no table is locked for longer than a moment.
The primary key of the counts is built beside who writes them, and swapped. `service.store.roles` puts the
row-level security on, which needs the roles. A worker of before cannot add to a count behind this revision.
"""

import sqlalchemy as sa
from alembic import op

from migrations import concurrent_index, locks, row_security

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

# In the order in which workers take their locks: in another, a worker and the migrator could each wait for
# what the other has.
_TABLES = (
    "models",
    "decoders",
    "samples",
    "request_names",
    "explanations",
    "concept_matches",
    "model_concepts",
    "flags",
    "incidents",
    "incident_events",
    "webhook_messages",
    "webhook_deliveries",
    "anomaly_windows",
    "request_tests",
    "canary_readings",
    "canary_flags",
    "coverage_minutes",
    "api_keys",
)
_DEFAULT_ID = "cc7d071b-fe4c-56b2-8970-b2fd46ba7e52"
_DEFAULT = f"COALESCE(NULLIF(current_setting('subtext.tenant', true), '')::uuid, '{_DEFAULT_ID}'::uuid)"
_COUNTS_KEY = ("minute", "source", "hop", "model", "stratum", "counter")
_NEW_KEY = "ix_coverage_minutes_of_tenant"
_OLD_KEY = "ix_coverage_minutes_of_all"


def upgrade() -> None:
    _create_tenants()
    locks.lock(*_TABLES)
    for table in _TABLES:
        op.execute(
            f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS tenant_id uuid NOT NULL DEFAULT {_DEFAULT}"
        )
    op.execute("ALTER TABLE api_keys ADD COLUMN IF NOT EXISTS role text")
    op.execute("ALTER TABLE api_keys ADD COLUMN IF NOT EXISTS models text[]")
    for table in ("models", "api_keys"):  # few rows: checked at once
        name = f"fk_{table}_tenant_id_tenants"
        op.execute(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {name}")
        op.create_foreign_key(op.f(name), table, "tenants", ["tenant_id"], ["id"])
    _change_key("models", "name", "tenant_id", "name")
    _change_key("decoders", "digest", "tenant_id", "digest")
    # It commits what was done so far, each statement of which can be done again.
    concurrent_index.build(_NEW_KEY, "coverage_minutes", "tenant_id", *_COUNTS_KEY, where=None, unique=True)
    # Or the first page of a tenant with few rows would read through everybody's.
    concurrent_index.build(
        "ix_explanations_tenant_id_captured_at_id",
        "explanations",
        "tenant_id",
        "captured_at",
        "id",
        where=None,
    )
    _analyze()
    _swap_counts_key(_NEW_KEY)


def downgrade() -> None:
    others = "SELECT FROM tenants WHERE name <> 'default'"
    if op.get_bind().execute(sa.text(f"SELECT EXISTS ({others})")).scalar():  # no input
        raise SystemExit(
            "there are tenants besides `default`, whose rows nothing would tell apart below revision 0018;"
            " delete their rows and them first"
        )
    row_security.take_off(*_TABLES, "concept_versions")
    concurrent_index.build(_OLD_KEY, "coverage_minutes", *_COUNTS_KEY, where=None, unique=True)
    locks.lock(*_TABLES)
    _swap_counts_key(_OLD_KEY)
    _change_key("models", "tenant_id_name", "name")
    _change_key("decoders", "tenant_id_digest", "digest")
    for column in ("role", "models"):
        op.drop_column("api_keys", column)
    for table in _TABLES:
        op.drop_column(table, "tenant_id")
    op.drop_table("tenants")


def _create_tenants() -> None:
    op.create_table(
        "tenants",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.CheckConstraint("name ~ '^[a-z0-9][a-z0-9-]{0,62}$'", name=op.f("ck_tenants_name")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tenants")),
        sa.UniqueConstraint("name", name=op.f("uq_tenants_name")),
        if_not_exists=True,
    )
    op.execute(
        f"INSERT INTO tenants (id, name) VALUES ('{_DEFAULT_ID}', 'default') ON CONFLICT DO NOTHING"  # noqa: S608
    )


def _change_key(table: str, before: str, *columns: str) -> None:
    """Let other columns be unique in a table of few rows."""
    now = "_".join(columns)
    for name in (before, now):  # the new one: of a migration that was interrupted
        op.execute(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS uq_{table}_{name}")
    op.create_unique_constraint(op.f(f"uq_{table}_{now}"), table, list(columns))


def _analyze() -> None:
    """Let the planner know the new column, of which autovacuum would tell it a tenth of a table later.

    It would take one row in 200 for the tenant's, and sort whole tables for a page of them.
    """
    with op.get_context().autocommit_block():
        for table in _TABLES:
            op.execute(f"ANALYZE {table} (tenant_id)")


def _swap_counts_key(index: str) -> None:
    op.execute(
        "ALTER TABLE coverage_minutes DROP CONSTRAINT pk_coverage_minutes,"
        f" ADD CONSTRAINT pk_coverage_minutes PRIMARY KEY USING INDEX {index}"
    )
