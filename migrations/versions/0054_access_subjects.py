"""List the access log by what it is about, in a table that follows it.

Under row-level security PostgreSQL uses no index over lists, since a list's operators are not leakproof:
who asked about one explanation had all entries read, and so had whoever erases. The new table has a row for
each id that an entry names, found by equality, which is leakproof. Triggers of the access log alone write
it, with the rights of its owner and in the entry's own transaction: they add rows with an entry, and take
them away when an id is erased from the entry or the entry goes.

1. The table and the triggers.
2. Rows of entries of before, some thousands of entries in a transaction. An entry that is erased from
   meanwhile is waited for, and an attempt that was killed is made good by the next one.
3. A trigger that refuses every other change, and no indexes over the lists any more.
"""

from typing import Final

import sqlalchemy as sa
from alembic import op

from migrations import concurrent_index

revision = "0054"
down_revision = "0053"
branch_labels = None
depends_on = None

_ENTRIES_AT_ONCE: Final = 5_000
# As service.store.identity derives it for the tenant "default".
_TENANT: Final = (
    "COALESCE(NULLIF(current_setting('subtext.tenant'::text, true), ''::text)::uuid,"
    " 'cc7d071b-fe4c-56b2-8970-b2fd46ba7e52'::uuid)"
)
# Until the roles have their policies nobody but the owner meets a row.
_TABLE: Final = (
    f"""
    CREATE TABLE IF NOT EXISTS access_subjects (
        subject_id uuid NOT NULL,
        was_asked boolean NOT NULL,
        at timestamptz NOT NULL,
        entry_id uuid NOT NULL,
        tenant_id uuid NOT NULL DEFAULT {_TENANT},
        CONSTRAINT pk_access_subjects PRIMARY KEY (tenant_id, subject_id, was_asked, at, entry_id)
    )
    """,
    "ALTER TABLE access_subjects ENABLE ROW LEVEL SECURITY",
)
# A reading of the log says in its details what it asked about; it is not about that itself.
_SUBJECTS_OF: Final = """
    SELECT unnest(ENTRY.subject_ids || ENTRY.capture_ids) AS subject_id, false AS was_asked
    UNION
    SELECT (ENTRY.details ->> 'subject')::uuid, true WHERE ENTRY.action = 'log_read'
        AND ENTRY.details ->> 'subject' ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
"""
_ADD: Final = f"""
    CREATE OR REPLACE FUNCTION SCHEMA.access_log_add_subjects() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = SCHEMA, pg_temp AS $$
    BEGIN
        INSERT INTO access_subjects (subject_id, was_asked, at, entry_id, tenant_id)
        SELECT subject_id, was_asked, NEW.at, NEW.id, NEW.tenant_id
        FROM ({_SUBJECTS_OF.replace("ENTRY", "NEW")}) AS named;
        RETURN NULL;
    END $$
"""  # noqa: S608  # no input
# Whatever tenant the caller names, as for the triggers of 0051. Behind a deletion NEW is null, so all go.
_REMOVE: Final = f"""
    CREATE OR REPLACE FUNCTION SCHEMA.access_log_remove_subjects() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = SCHEMA, pg_temp SET enable_seqscan = off AS $$
    DECLARE
        tenant text := COALESCE(current_setting('subtext.tenant', true), '');
        one record;
    BEGIN
        PERFORM set_config('subtext.tenant', '', true);
        FOR one IN
            ({_SUBJECTS_OF.replace("ENTRY", "OLD")}) EXCEPT ({_SUBJECTS_OF.replace("ENTRY", "NEW")})
        LOOP
            DELETE FROM access_subjects
            WHERE tenant_id = OLD.tenant_id AND subject_id = one.subject_id
                AND was_asked = one.was_asked AND at = OLD.at AND entry_id = OLD.id;
        END LOOP;
        PERFORM set_config('subtext.tenant', tenant, true);
        RETURN NULL;
    END $$
"""  # noqa: S608  # no input
_REFUSE: Final = """
    CREATE FUNCTION access_subjects_refuse_change() RETURNS trigger LANGUAGE plpgsql
    SET search_path = SCHEMA, pg_temp AS $$
    BEGIN
        -- Within a trigger of the access log, else by itself.
        IF TG_OP IN ('INSERT', 'DELETE') AND pg_trigger_depth() > 1 THEN
            RETURN NULL;
        END IF;
        RAISE EXCEPTION 'rows of access_subjects follow access_log: % is refused', TG_OP
        USING ERRCODE = 'restrict_violation';
    END $$
"""
# By the trigger's name: when it fires, and what it calls.
_TRIGGERS: Final = {
    "access_log_adds_subjects": ("INSERT", "access_log_add_subjects()"),
    "access_log_removes_subjects": ("UPDATE OR DELETE", "access_log_remove_subjects()"),
}
_NAME_SOME: Final = sa.text(f"""
    WITH batch AS MATERIALIZED (
        SELECT id, seq, at, tenant_id, action, subject_ids, capture_ids, details
        FROM access_log WHERE seq > :seq ORDER BY seq LIMIT {_ENTRIES_AT_ONCE} FOR SHARE
    ), added AS (
        INSERT INTO access_subjects (subject_id, was_asked, at, entry_id, tenant_id)
        SELECT subject_id, was_asked, batch.at, batch.id, batch.tenant_id
        FROM batch CROSS JOIN LATERAL ({_SUBJECTS_OF.replace("ENTRY", "batch")}) AS named
        ON CONFLICT DO NOTHING
    )
    SELECT max(seq) FROM batch
""")  # noqa: S608  # no input
_OVER_LISTS: Final = ("subject_ids", "capture_ids")


def upgrade() -> None:
    schema = op.get_bind().execute(sa.text("SELECT quote_ident(current_schema())")).scalar_one()
    for statement in (*_TABLE, _ADD, _REMOVE):
        op.get_bind().exec_driver_sql(statement.replace("SCHEMA", schema))
    for name, (events, function) in _TRIGGERS.items():
        # Or anybody could let a table of his own call it.
        op.execute(f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC")
        op.execute(
            f"CREATE OR REPLACE TRIGGER {name} AFTER {events} ON access_log"
            f" FOR EACH ROW EXECUTE FUNCTION {function}"
        )
        op.execute(f"ALTER TABLE access_log ENABLE ALWAYS TRIGGER {name}")
    with op.get_context().autocommit_block():
        last = -1
        while last is not None:
            last = op.get_bind().execute(_NAME_SOME, {"seq": last}).scalar_one()
        op.execute("ANALYZE access_subjects")
    for column in _OVER_LISTS:
        concurrent_index.drop(f"ix_access_log_{column}", "access_log")
    op.get_bind().exec_driver_sql(_REFUSE.replace("SCHEMA", schema).replace("%", "%%"))
    op.execute(
        "CREATE TRIGGER access_subjects_follow BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE"
        " ON access_subjects FOR EACH STATEMENT EXECUTE FUNCTION access_subjects_refuse_change()"
    )
    op.execute("ALTER TABLE access_subjects ENABLE ALWAYS TRIGGER access_subjects_follow")


def downgrade() -> None:
    for column in _OVER_LISTS:
        op.create_index(f"ix_access_log_{column}", "access_log", [column], postgresql_using="gin")
    for name, (_, function) in _TRIGGERS.items():
        op.execute(f"DROP TRIGGER {name} ON access_log")
        op.execute(f"DROP FUNCTION {function}")
    op.drop_table("access_subjects")  # with its trigger
    op.execute("DROP FUNCTION access_subjects_refuse_change()")
