"""Let people sign in: their sessions, and who acted in one, in the access log and in incidents' history.

New columns are null in rows of before, and no row is written again. The access log's conditions grow by new
words: they are checked for rows that are added, then for all without a lock that stops anybody. Its indexes
are built beside it, of rows with a session alone. Each step can be done again after it was interrupted.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from migrations import concurrent_index, locks, row_security

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

# As service.store.identity derives it for the tenant "default".
_TENANT = sa.text(
    "COALESCE(NULLIF(current_setting('subtext.tenant'::text, true), ''::text)::uuid,"
    " 'cc7d071b-fe4c-56b2-8970-b2fd46ba7e52'::uuid)"
)
_NAMING = ("access_log", "incident_events")
_BEFORE = {
    "action": "'read_text', 'write', 'deny', 'export', 'key_change', 'configuration_change', 'log_read'",
    "result": "'done', 'missing_scope', 'revoked_key', 'expired_key'",
}
_ADDED = {
    "action": "'sign_in', 'sign_out', 'session_change'",
    "result": "'revoked_session', 'expired_session', 'cross_origin', 'failed'",
}


def upgrade() -> None:
    _add_sessions()
    # In the order in which the service takes them.
    locks.lock(*reversed(_NAMING))
    for table in _NAMING:
        for column, kind in (("session_id", "uuid"), ("issuer", "text"), ("person", "text")):
            op.execute(f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {column} {kind}")
    for column, words in _BEFORE.items():
        _limit(column, f"{words}, {_ADDED[column]}")
    with op.get_context().autocommit_block():
        for column in _BEFORE:
            op.execute(f"ALTER TABLE access_log VALIDATE CONSTRAINT ck_access_log_{column}")
    concurrent_index.build("ix_access_log_session_id_at", "access_log", "session_id", "at")
    concurrent_index.build("ix_access_log_person_at_id", "access_log", "person", "at", "id")


def _add_sessions() -> None:
    texts, nothing = postgresql.ARRAY(sa.Text()), sa.text("'{}'::text[]")
    time = sa.DateTime(timezone=True)
    op.create_table(
        "sessions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("token_sha256", postgresql.BYTEA(), nullable=False),
        sa.Column("login_sha256", postgresql.BYTEA(), nullable=True),
        sa.Column("issuer", sa.Text(), nullable=True),
        sa.Column("person", sa.Text(), nullable=True),
        sa.Column("display_name", sa.Text(), nullable=True),
        sa.Column("key_id", sa.Uuid(), nullable=True),
        sa.Column("roles", texts, server_default=nothing, nullable=False),
        sa.Column("scopes", texts, server_default=nothing, nullable=False),
        sa.Column("models", texts, nullable=True),
        sa.Column("created_at", time, server_default=sa.text("now()"), nullable=False),
        sa.Column("last_seen_at", time, nullable=True),
        sa.Column("idle_expires_at", time, nullable=False),
        sa.Column("expires_at", time, nullable=False),
        sa.Column("revoked_at", time, nullable=True),
        sa.Column("ended", sa.Text(), nullable=True),
        sa.Column("tenant_id", sa.Uuid(), server_default=_TENANT, nullable=False),
        sa.CheckConstraint("(person IS NULL) <> (key_id IS NULL)", name=op.f("ck_sessions_whose")),
        sa.CheckConstraint("(person IS NULL) = (issuer IS NULL)", name=op.f("ck_sessions_issuer")),
        sa.CheckConstraint("(revoked_at IS NULL) = (ended IS NULL)", name=op.f("ck_sessions_ended")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sessions")),
        sa.UniqueConstraint("token_sha256", name=op.f("uq_sessions_token_sha256")),
        sa.UniqueConstraint("login_sha256", name=op.f("uq_sessions_login_sha256")),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name=op.f("fk_sessions_key_id_api_keys")),
        if_not_exists=True,
    )


def _limit(column: str, words: str) -> None:
    name = f"ck_access_log_{column}"
    op.execute(f"ALTER TABLE access_log DROP CONSTRAINT IF EXISTS {name}")
    op.execute(f"ALTER TABLE access_log ADD CONSTRAINT {name} CHECK ({column} IN ({words})) NOT VALID")


def downgrade() -> None:
    # Rows with a new word stay, as the log's do: the conditions of before hold for those that are added.
    for column, words in _BEFORE.items():
        _limit(column, words)
    for table in _NAMING:
        for column in ("person", "issuer", "session_id"):
            op.drop_column(table, column)  # with its indexes
    row_security.take_off("sessions")
    op.drop_table("sessions")
