"""Let the keeper drop days of which nothing is left, and no others.

It could drop any day that is over, with rows, holds and all; the log told afterwards that they are gone.
Whoever owns the tables still may.
"""

from typing import Final

import sqlalchemy as sa
from alembic import op

from migrations import functions

revision = "0053"
down_revision = "0051"
branch_labels = None
depends_on = None

_LIST: Final = """
    CREATE FUNCTION subtext_list_empty(ended_before timestamptz) RETURNS SETOF text
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = {schema}, pg_temp SET timezone = 'UTC' AS $$
    DECLARE
        found record;
        one regclass;
        has_rows boolean;
    BEGIN
        FOR found IN
            SELECT substr(child.relname, length(parent.relname) + 2) AS suffix,
                array_agg(child.oid::regclass) AS partitions
            FROM pg_inherits
            JOIN pg_class AS child ON child.oid = inhrelid JOIN pg_class AS parent ON parent.oid = inhparent
            WHERE inhparent IN (
                'samples'::regclass, 'request_names'::regclass, 'explanations'::regclass,
                'concept_matches'::regclass
            )
            GROUP BY 1
            -- The default partition ends nowhere, so it is in none of these.
            HAVING every(substring(
                pg_get_expr(child.relpartbound, child.oid) FROM 'TO \\(''([^'']+)''\\)'
            )::timestamptz <= ended_before)
            ORDER BY 1
        LOOP
            has_rows := false;
            FOREACH one IN ARRAY found.partitions LOOP
                EXECUTE format('SELECT EXISTS (SELECT FROM %s)', one) INTO has_rows;
                EXIT WHEN has_rows;
            END LOOP;
            IF NOT has_rows THEN
                RETURN NEXT found.suffix;
            END IF;
        END LOOP;
    END $$
"""
_ONLY_EMPTY: Final = (
    (
        "        dropped integer := 0;\n",
        "        dropped integer := 0;\n        has_rows boolean;\n",
    ),
    (
        "            EXECUTE format('DROP TABLE %s', found.name);\n",
        """            EXECUTE format('SELECT EXISTS (SELECT FROM %s)', found.name) INTO has_rows;
            IF has_rows AND NOT pg_has_role(
                session_user, (SELECT relowner FROM pg_class WHERE oid = found.name), 'MEMBER'
            ) THEN
                RAISE EXCEPTION '% has rows: a day goes when nothing of it is left', found.name
                USING ERRCODE = 'restrict_violation';
            END IF;
            EXECUTE format('DROP TABLE %s', found.name);
""",
    ),
)


def upgrade() -> None:
    schema = op.get_bind().execute(sa.text("SELECT quote_ident(current_schema())")).scalar_one()
    op.execute(sa.text(_LIST.format(schema=schema).replace(":", r"\:")))
    op.execute("REVOKE ALL ON FUNCTION subtext_list_empty(timestamptz) FROM PUBLIC")
    functions.rewrite("subtext_drop_partitions(text)", _ONLY_EMPTY)


def downgrade() -> None:
    functions.rewrite("subtext_drop_partitions(text)", tuple((new, old) for old, new in _ONLY_EMPTY))
    op.execute("DROP FUNCTION IF EXISTS subtext_list_empty(timestamptz)")
