"""Tell when an id was captured by functions whose plans PostgreSQL keeps, whatever stands between.

What is looked up by an id, a name or a trace may be in any day, and planning a statement for all days costs
more than it reads. Statements are not prepared, since a pooler may stand between; a function in PL/pgSQL
keeps its plan on the server, one for all values. Each runs with its caller's rights, under row-level
security.

Days are looked into from the newest on: a week, then a month, then all. What is not counted is read in the
order of an index, so that a name or a trace that is used for very much costs what is asked of it.
"""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision = "0049"
down_revision = "0048"
branch_labels = None
depends_on = None

_STEPS: Final = "ARRAY[{now} - interval '7 days', {now} - interval '35 days', '-infinity']"
_TIME: Final = """
    DECLARE
        since timestamptz;
        until timestamptz := 'infinity';
        found_at timestamptz;
    BEGIN
        FOREACH since IN ARRAY {steps} LOOP
            SELECT captured_at INTO found_at FROM {table}
            WHERE {condition} AND captured_at >= since AND captured_at < until LIMIT 1;
            EXIT WHEN FOUND;
            until := since;
        END LOOP;
        RETURN found_at;
    END
"""
_NAMED: Final = """
    DECLARE
        now_at timestamptz := LEAST(before_at, now());
        since timestamptz;
        until timestamptz;
        one text;
        missing integer;
        more integer;
    BEGIN
        FOREACH one IN ARRAY names LOOP
            until := 'infinity';
            missing := at_most;
            FOREACH since IN ARRAY {steps} LOOP
                RETURN QUERY SELECT * FROM request_names
                WHERE name = one AND captured_at >= since AND captured_at < until
                    AND captured_at <= COALESCE(before_at, 'infinity')
                    AND (before_at IS NULL OR (captured_at, capture) < (before_at, before_capture))
                    AND (of_capture IS NULL OR capture_id = of_capture)
                ORDER BY captured_at DESC, capture DESC LIMIT missing;
                GET DIAGNOSTICS more = ROW_COUNT;
                missing := missing - more;
                EXIT WHEN missing <= 0;
                until := since;
            END LOOP;
        END LOOP;
    END
"""
_COUNT: Final = """
    BEGIN
        RETURN (
            SELECT count(*) FROM (
                SELECT FROM request_names WHERE name = ANY (names) LIMIT at_most
            ) AS counted
        );
    END
"""
_IDS: Final = """
    BEGIN
        RETURN QUERY SELECT capture_id FROM request_names
        WHERE name = ANY (names) AND capture_id IS NOT NULL;
    END
"""
_TRACE: Final = """
    BEGIN
        RETURN QUERY SELECT min(at), max(at) FROM (
            SELECT captured_at AS at FROM samples WHERE trace_id = trace
            ORDER BY captured_at, id LIMIT at_most
        ) AS earliest GROUP BY (at AT TIME ZONE 'UTC')::date;
    END
"""
# Each block once; and in order, so that no more is read than is asked for.
_OF_ALL: Final = "SET enable_indexscan = off"
_IN_ORDER: Final = "SET enable_bitmapscan = off SET enable_sort = off"
# By name: its parameters, what it returns, and how.
_FUNCTIONS: Final = {
    "subtext_time_of_explanation": (
        "explanation uuid",
        "timestamptz",
        _TIME.format(steps=_STEPS.format(now="now()"), table="explanations", condition="id = explanation"),
    ),
    "subtext_time_of_capture": (
        "of_capture uuid, of_model uuid",
        "timestamptz",
        _TIME.format(
            steps=_STEPS.format(now="now()"),
            table="samples",
            condition="capture_id = of_capture AND model_id = of_model",
        ),
    ),
    "subtext_captures_named": (
        "names text[], of_capture uuid, before_at timestamptz, before_capture uuid, at_most integer",
        "SETOF request_names",
        _NAMED.format(steps=_STEPS.format(now="now_at")),
    ),
    "subtext_count_named": ("names text[], at_most integer", "bigint", _COUNT),
    "subtext_capture_ids_named": ("names text[]", "SETOF uuid", _IDS),
    "subtext_days_of_trace": (
        "trace text, at_most integer",
        "TABLE (first_at timestamptz, last_at timestamptz)",
        _TRACE,
    ),
}


def upgrade() -> None:
    schema = op.get_bind().execute(sa.text("SELECT quote_ident(current_schema())")).scalar_one()
    for name, (parameters, returned, body) in _FUNCTIONS.items():
        op.get_bind().exec_driver_sql(
            f"CREATE FUNCTION {schema}.{name}({parameters}) RETURNS {returned}"
            f" LANGUAGE plpgsql STABLE SECURITY INVOKER SET search_path = {schema}, pg_temp"
            " SET plan_cache_mode = force_generic_plan SET jit = off SET enable_seqscan = off"
            f" {_OF_ALL if body in {_COUNT, _IDS} else _IN_ORDER} AS $${body}$$"
        )


def downgrade() -> None:
    for name in _FUNCTIONS:
        op.execute(f"DROP FUNCTION {name}")
