"""Partitions in migrations: the functions that make and drop days, rights handed over, and indexes.

A partition has no grants and no policies: it is met through its table, whose policies hold, and by nobody
else but the owner.
"""

from typing import Final

import sqlalchemy as sa
from alembic import op

from migrations import concurrent_index

_LOCK: Final = 5_873_146_024
_AHEAD_AT_MOST: Final = 60

_CLOSE: Final = """
    CREATE FUNCTION {schema}.subtext_close_partition(partition regclass) RETURNS void LANGUAGE plpgsql
    SET search_path = {schema}, pg_temp AS $$
    DECLARE granted record;
    BEGIN
        -- What later tables are granted by default, too.
        FOR granted IN SELECT DISTINCT grantee::regrole AS role
            FROM pg_class, aclexplode(relacl) WHERE oid = partition AND grantee NOT IN (relowner, 0)
        LOOP EXECUTE format('REVOKE ALL ON %s FROM %s', partition, granted.role); END LOOP;
        EXECUTE format(
            'ALTER TABLE %s ENABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY', partition
        );
    END $$
"""
_MAKE: Final = """
    CREATE FUNCTION {schema}.subtext_make_day(day date) RETURNS text LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = {schema}, pg_temp SET lock_timeout = '500ms' SET timezone = 'UTC' AS $$
    DECLARE
        parent text;
        partition text;
        outcome text := 'there';
    BEGIN
        IF day > current_date + {ahead} THEN
            RAISE EXCEPTION 'a day over {ahead} days ahead is not made';
        END IF;
        PERFORM pg_advisory_xact_lock({lock});
        FOREACH parent IN ARRAY ARRAY['samples', 'request_names', 'explanations', 'concept_matches'] LOOP
            partition := parent || to_char(day, '_YYYYMMDD');
            CONTINUE WHEN to_regclass(format('%I.%I', '{schema}', partition)) IS NOT NULL;
            -- Made aside and attached: to create it in its place would lock out whoever writes.
            EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', partition, parent);
            PERFORM subtext_close_partition(partition::regclass);
            EXECUTE format(
                'ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                parent, partition, day::timestamptz, (day + 1)::timestamptz
            );
            outcome := 'made';
        END LOOP;
        RETURN outcome;
    EXCEPTION
        WHEN invalid_object_definition THEN RETURN 'covered';  -- by the partition of what was before
        WHEN check_violation THEN RETURN 'occupied';  -- rows of that day lie in a default partition
    END $$
"""
_DROP: Final = """
    CREATE FUNCTION {schema}.subtext_drop_partitions(suffix text) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = {schema}, pg_temp SET lock_timeout = '500ms' SET timezone = 'UTC' AS $$
    DECLARE
        found record;
        dropped integer := 0;
    BEGIN
        IF suffix !~ '^(before|[0-9]{{8}})$' THEN
            RAISE EXCEPTION 'a day is dropped by YYYYMMDD, what is older than the first by "before"';
        END IF;
        PERFORM pg_advisory_xact_lock({lock});
        -- All at once, in the order of those who write: whoever waits for one then waits for no other.
        LOCK TABLE ONLY samples, ONLY request_names, ONLY explanations, ONLY concept_matches
            IN ACCESS EXCLUSIVE MODE;
        FOR found IN
            SELECT child.oid::regclass AS name, substring(
                pg_get_expr(child.relpartbound, child.oid) FROM 'TO \\(''([^'']+)''\\)'
            )::timestamptz AS ends_at
            FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid
            WHERE inhparent IN (
                'samples'::regclass, 'request_names'::regclass, 'explanations'::regclass,
                'concept_matches'::regclass
            ) AND child.relname = (SELECT relname FROM pg_class WHERE oid = inhparent) || '_' || suffix
        LOOP
            IF found.ends_at IS NULL OR found.ends_at > now() THEN
                RAISE EXCEPTION '% is not over yet', found.name;
            END IF;
            EXECUTE format('DROP TABLE %s', found.name);
            dropped := dropped + 1;
        END LOOP;
        RETURN dropped;
    END $$
"""
_FUNCTIONS: Final = (
    ("subtext_close_partition(regclass)", _CLOSE),
    ("subtext_make_day(date)", _MAKE),
    ("subtext_drop_partitions(text)", _DROP),
)

_HAND_OVER: Final = """
    DO $$ DECLARE
        source regclass := '{source}'; target regclass := '{target}'; found record;
    BEGIN
        SELECT relowner::regrole AS owner, relrowsecurity, relforcerowsecurity INTO found
            FROM pg_class WHERE oid = source;
        EXECUTE format('ALTER TABLE %s OWNER TO %s', target, found.owner);
        EXECUTE format(
            'ALTER TABLE %s %s ROW LEVEL SECURITY, %s ROW LEVEL SECURITY', target,
            CASE WHEN found.relrowsecurity THEN 'ENABLE' ELSE 'DISABLE' END,
            CASE WHEN found.relforcerowsecurity THEN 'FORCE' ELSE 'NO FORCE' END
        );
        FOR found IN SELECT privilege_type, grantee::regrole AS role FROM pg_class, aclexplode(relacl)
            WHERE oid = source AND grantee NOT IN (relowner, 0)
        LOOP EXECUTE format('GRANT %s ON %s TO %s', found.privilege_type, target, found.role); END LOOP;
        FOR found IN SELECT * FROM pg_policies
            WHERE schemaname = current_schema() AND tablename = '{source}'
        LOOP
            EXECUTE format(
                'CREATE POLICY %I ON %s FOR %s TO %s', found.policyname, target, found.cmd,
                array_to_string(found.roles, ', ')
            ) || COALESCE(' USING (' || found.qual || ')', '')
              || COALESCE(' WITH CHECK (' || found.with_check || ')', '');
            EXECUTE format('DROP POLICY %I ON %s', found.policyname, source);
        END LOOP;
    END $$
"""

_WITHOUT_INDEX: Final = """
    SELECT child.relname FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid
    WHERE inhparent = to_regclass(:table) AND NOT EXISTS (
        SELECT FROM pg_index JOIN pg_inherits AS part ON part.inhrelid = indexrelid
        WHERE indrelid = child.oid AND part.inhparent = to_regclass(:index)
    ) ORDER BY child.relname
"""


def create_functions() -> None:
    """Create the functions by which days are made and dropped; `service.store.roles` says who may."""
    drop_functions()
    schema = op.get_bind().execute(sa.text("SELECT quote_ident(current_schema())")).scalar_one()
    for signature, body in _FUNCTIONS:
        op.execute(
            sa.text(body.format(schema=schema, lock=_LOCK, ahead=_AHEAD_AT_MOST).replace(":", r"\:"))
        )
        op.execute(f"REVOKE ALL ON FUNCTION {signature} FROM PUBLIC")


def drop_functions() -> None:
    """Drop them, where they are."""
    for signature, _ in _FUNCTIONS:
        op.execute(f"DROP FUNCTION IF EXISTS {signature}")


def build_index(name: str, table: str, *columns: str) -> None:
    """Index every partition of the table beside whoever writes, and then the table as a whole.

    What was interrupted goes on: the table's own index is not valid before it has one of every partition.
    A day that is made meanwhile has the index already.
    """
    listed = ", ".join(columns)
    with op.get_context().autocommit_block():
        op.execute(f"CREATE INDEX IF NOT EXISTS {name} ON ONLY {table} ({listed})")
        found = op.get_bind().execute(sa.text(_WITHOUT_INDEX), {"table": table, "index": name})
        missing = list(found.scalars())
    for partition in missing:
        # As PostgreSQL calls it in a day that is made later.
        part = f"{partition}_{'_'.join(columns)}_idx"
        concurrent_index.build(part, partition, *columns, where=None)
        op.execute(f"ALTER INDEX {name} ATTACH PARTITION {part}")


def hand_over_rights(source: str, target: str) -> None:
    """Give the target the source's owner, grants and policies; policies are the source's no more."""
    op.execute(sa.text(_HAND_OVER.format(source=source, target=target).replace(":", r"\:")))


def close(partition: str) -> None:
    """Let nobody but its owner meet the partition itself."""
    op.execute(f"SELECT subtext_close_partition('{partition}')")


def is_partition(table: str) -> bool:
    """Tell whether the table is part of another one."""
    query = sa.text("SELECT relispartition FROM pg_class WHERE oid = to_regclass(:table)")
    return bool(op.get_bind().execute(query, {"table": table}).scalar())


def columns_of(table: str) -> list[str]:
    """Return the table's columns in their order."""
    return [column["name"] for column in sa.inspect(op.get_bind()).get_columns(table)]
