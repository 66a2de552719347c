"""Find words inside explanations, and readings of anomalous states, without reading all of them.

Two indexes of `explanations`, each built beside who writes, a partition at a time, and a function that asks
the first one. Under row-level security PostgreSQL uses no index by a condition that is not leakproof, and
that of full text is not. The function has the rights of the partitions' owner, whom their row-level
security leaves out, and meets the rows of the transaction's tenant alone. It tells where readings are and
no more: they are read through their table, whose policies hold.
"""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision = "0037"
down_revision = "0036"
branch_labels = None
depends_on = None

_TABLE: Final = "explanations"
# PostgreSQL refuses a row whose words take over 1 MB, so the index is of the text's beginning.
_WORDS: Final = "to_tsvector('simple'::regconfig, \"left\"(text, 16384))"
_INDEXES: Final = {
    "ix_explanations_words": f"USING gin (({_WORDS}))",
    "ix_explanations_anomalous": (
        "(tenant_id, captured_at, id, anomaly_p_value) WHERE anomaly_p_value <= 0.05"
    ),
}
_FOUND_AT_MOST: Final = 2000
_WALKED: Final = 1000
_ASKED_FOR: Final = """tenant_id = $2 AND captured_at >= $3 AND captured_at < $4
    AND (captured_at, id) < (COALESCE($5, 'infinity'), COALESCE($6, $2))"""
_NEWEST_FIRST: Final = "ORDER BY captured_at DESC, id DESC"
# In a table of its own, so that no other index is taken for it. Of phrases all words are looked for first.
_BY_INDEX: Final = f"""
    SELECT count(*), array_agg(captured_at {_NEWEST_FIRST}) FILTER (WHERE is_asked_for) AS at,
        array_agg(id {_NEWEST_FIRST}) FILTER (WHERE is_asked_for) AS id
    FROM (
        SELECT captured_at, id, CASE
            WHEN count(*) OVER () < {_FOUND_AT_MOST} AND {_ASKED_FOR} THEN $1 = $7 OR {_WORDS} @@ $1
        END AS is_asked_for
        FROM (SELECT * FROM %1$I WHERE {_WORDS} @@ $7 LIMIT {_FOUND_AT_MOST}) AS found
    ) AS found
"""  # noqa: S608  # no input
_BY_TIME: Final = f"""
    SELECT array_agg(captured_at) AS at, array_agg(id) AS id FROM (
        SELECT captured_at, id FROM (
            SELECT * FROM %1$I WHERE {_ASKED_FOR} {_NEWEST_FIRST} LIMIT {_WALKED}
        ) AS newest WHERE {_WORDS} @@ $1 LIMIT $7
    ) AS found
"""  # noqa: S608  # no input
_REACHED: Final = f"""
    SELECT captured_at AS at, id FROM %1$I WHERE {_ASKED_FOR} {_NEWEST_FIRST} OFFSET {_WALKED - 1} LIMIT 1
"""  # noqa: S608  # no input
_FIND: Final = """
    CREATE FUNCTION {schema}.subtext_find_words(
        words text, since timestamptz, until timestamptz, after_at timestamptz, after_id uuid,
        wanted integer,
        OUT found_at timestamptz[], OUT found_id uuid[], OUT reached_at timestamptz, OUT reached_id uuid
    ) LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = {schema}, pg_temp SET timezone = 'UTC' SET enable_seqscan = off AS $$
    DECLARE
        tenant uuid := NULLIF(current_setting('subtext.tenant', true), '')::uuid;
        asked tsquery := websearch_to_tsquery('simple', words);
        together tsquery := asked;
        partition text;
        part record;
        reached record;
        of_days bigint := 0;
        is_cut boolean;
    BEGIN
        IF querytree(asked) IN ('', 'T') THEN
            RAISE EXCEPTION 'these words name nothing that is to be found';
        END IF;
        IF asked::text !~ '!' THEN
            together := regexp_replace(asked::text, '<(-|[0-9]+)>', '&', 'g')::tsquery;
        END IF;
        found_at := '{{}}';
        found_id := '{{}}';
        -- The default partition may hold any time, so it comes first; then the days, the newest first.
        FOR partition IN
            SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
            WHERE inhparent = 'explanations'::regclass AND (
                relname IN ('explanations_default', 'explanations_before')
                OR relname BETWEEN to_char(since, '"explanations_"YYYYMMDD')
                AND to_char(until, '"explanations_"YYYYMMDD')
            )
            ORDER BY relname = 'explanations_default' DESC, relname = 'explanations_before', relname DESC
        LOOP
            EXECUTE format({by_index}, partition)
                INTO part USING asked, tenant, since, until, after_at, after_id, together;
            is_cut := false;
            IF part.count = {at_most} THEN  -- so common that the newest readings have it as well
                EXECUTE format({by_time}, partition)
                    INTO part USING asked, tenant, since, until, after_at, after_id, wanted;
                IF COALESCE(cardinality(part.at), 0) < wanted THEN
                    EXECUTE format({reached}, partition)
                        INTO reached USING asked, tenant, since, until, after_at, after_id;
                    is_cut := reached.id IS NOT NULL;
                    IF is_cut AND (
                        reached_id IS NULL OR (reached.at, reached.id) > (reached_at, reached_id)
                    ) THEN
                        reached_at := reached.at;
                        reached_id := reached.id;
                    END IF;
                END IF;
            END IF;
            found_at := found_at || COALESCE(part.at[1:wanted], '{{}}');
            found_id := found_id || COALESCE(part.id[1:wanted], '{{}}');
            IF partition <> 'explanations_default' THEN
                of_days := of_days + COALESCE(cardinality(part.at), 0);
                EXIT WHEN of_days >= wanted OR is_cut;
            END IF;
        END LOOP;
        SELECT COALESCE(array_agg(newest.at), '{{}}'), COALESCE(array_agg(newest.id), '{{}}')
        INTO found_at, found_id FROM (
            SELECT * FROM unnest(found_at, found_id) AS found (at, id)
            WHERE reached_id IS NULL OR (found.at, found.id) >= (reached_at, reached_id)
            ORDER BY found.at DESC, found.id DESC LIMIT wanted
        ) AS newest;
    END $$
"""
_SIGNATURE: Final = "subtext_find_words(text, timestamptz, timestamptz, timestamptz, uuid, integer)"


def upgrade() -> None:
    for name, definition in _INDEXES.items():
        _build(name, definition)
    schema = op.get_bind().execute(sa.text("SELECT quote_ident(current_schema())")).scalar_one()
    op.execute(f"DROP FUNCTION IF EXISTS {_SIGNATURE}")
    queries = {"by_index": _BY_INDEX, "by_time": _BY_TIME, "reached": _REACHED}
    quoted = {name: f"$query${query}$query$" for name, query in queries.items()}
    body = _FIND.format(schema=schema, at_most=_FOUND_AT_MOST, **quoted)
    op.get_bind().exec_driver_sql(body.replace("%", "%%"))
    op.execute(f"REVOKE ALL ON FUNCTION {_SIGNATURE} FROM PUBLIC")


def downgrade() -> None:
    op.execute(f"DROP FUNCTION {_SIGNATURE}")
    for name in _INDEXES:
        op.execute(f"DROP INDEX IF EXISTS {name}")


def _build(name: str, definition: str) -> None:
    """Index every partition without locking its writers out, then let the table's index be made of those.

    An index of the table itself comes first: days that are made meanwhile have it. It is valid once every
    partition has one; a build that was interrupted left none that is attached, and is begun again.
    """
    op.execute(f"CREATE INDEX IF NOT EXISTS {name} ON ONLY {_TABLE} {definition}")
    with op.get_context().autocommit_block():
        for partition in _without(name):
            part = f"{partition}_{name.removeprefix('ix_explanations_')}_idx"
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {part}")
            op.execute(f"CREATE INDEX CONCURRENTLY {part} ON {partition} {definition}")
            op.execute(f"ALTER INDEX {name} ATTACH PARTITION {part}")


def _without(name: str) -> list[str]:
    """Return the partitions that have no part of the table's index."""
    query = """
        SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = to_regclass(:table)
        AND NOT EXISTS (
            SELECT FROM pg_inherits AS part JOIN pg_index ON indexrelid = part.inhrelid
            WHERE part.inhparent = to_regclass(:name) AND indrelid = pg_inherits.inhrelid
        ) ORDER BY 1
    """
    found = op.get_bind().execute(sa.text(query), {"table": _TABLE, "name": name})
    return list(found.scalars())
