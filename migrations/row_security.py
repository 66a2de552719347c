"""Row-level security in migrations: taken off before what it goes by can be dropped.

It is put on by `service.store.roles`, behind every migration and for every table that has a `tenant_id`, so
that no later table can be forgotten: its policies name the roles, which some logins cannot make.
"""

from alembic import op

_TAKE_OFF = """
    DO $$ DECLARE found record; BEGIN
        FOR found IN SELECT policyname FROM pg_policies
            WHERE schemaname = current_schema() AND tablename = '{table}'
        LOOP EXECUTE format('DROP POLICY %I ON {table}', found.policyname); END LOOP;
    END $$
"""


def take_off(*tables: str) -> None:
    """Take row-level security off these tables, where it is on; the next migration puts it on again."""
    for table in tables:
        op.execute(_TAKE_OFF.format(table=table))
        op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY")
