"""Walk the samples of one model in the order of time, and let the keeper analyse the tables of days.

1. The index is built partition by partition beside who writes. A seldom model's readings were looked for
   among those of all models before.
2. Autovacuum analyses no partitioned table as a whole. The keeper may have it done by a function of the
   owner, and has no right to maintain anything else.
"""

from typing import Final

import sqlalchemy as sa
from alembic import op

from migrations import partitions

revision = "0035"
down_revision = "0034"
branch_labels = None
depends_on = None

_INDEX: Final = "ix_samples_model_id_captured_at"
_ANALYZE: Final = """
    CREATE OR REPLACE FUNCTION {schema}.subtext_analyze_parent(parent text) RETURNS void LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
    BEGIN
        IF parent NOT IN ('samples', 'request_names', 'explanations', 'concept_matches') THEN
            RAISE EXCEPTION '% is no table of days', parent;
        END IF;
        -- Before version 18 PostgreSQL cannot leave the partitions out.
        EXECUTE format('ANALYZE %s%I', CASE
            WHEN current_setting('server_version_num')::int >= 180000 THEN 'ONLY ' ELSE ''
        END, parent);
    END $$
"""


def upgrade() -> None:
    schema = op.get_bind().execute(sa.text("SELECT quote_ident(current_schema())")).scalar_one()
    op.execute(sa.text(_ANALYZE.format(schema=schema).replace(":", r"\:")))
    op.execute("REVOKE ALL ON FUNCTION subtext_analyze_parent(text) FROM PUBLIC")
    partitions.build_index(_INDEX, "samples", "model_id", "captured_at")


def downgrade() -> None:
    op.execute(f"DROP INDEX IF EXISTS {_INDEX}")
    op.execute("DROP FUNCTION IF EXISTS subtext_analyze_parent(text)")
