"""Keep the stratum, the baseline probability and the screen's scores of samples; count by stratum.

Workers of the revision before cannot write to these tables: stop them, migrate, start the new ones.
What waits in the stream meanwhile is not lost. Rows of before were sampled by one rule and by no
screen; their counts did not tell strata apart.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_KEY = "pk_coverage_minutes"
_OF_WORKERS = "hop = 'worker' AND counter = 'rows_consumed'"


def upgrade() -> None:
    op.add_column("samples", sa.Column("stratum", sa.Text(), nullable=False, server_default="uniform"))
    op.add_column("samples", sa.Column("baseline_probability", sa.Double(), nullable=True))
    op.add_column(
        "samples",
        sa.Column(
            "screen_scores",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            server_default=sa.text("'{}'::jsonb"),
        ),
    )
    op.execute("UPDATE samples SET baseline_probability = inclusion_probability")
    op.alter_column("samples", "baseline_probability", nullable=False)
    op.create_check_constraint(
        op.f("ck_samples_baseline_probability"),
        "samples",
        "baseline_probability >= 0 AND baseline_probability <= inclusion_probability",
    )
    op.add_column(
        "coverage_minutes", sa.Column("stratum", sa.Text(), nullable=False, server_default="unknown")
    )
    op.drop_constraint(_KEY, "coverage_minutes", type_="primary")
    op.create_primary_key(
        _KEY, "coverage_minutes", ["minute", "source", "hop", "model", "stratum", "counter"]
    )
    op.create_index(
        "ix_coverage_minutes_consumed",
        "coverage_minutes",
        ["model", "minute"],
        postgresql_where=sa.text(_OF_WORKERS),
    )
    # The defaults were for the rows that are there: whoever writes a new one has to say.
    for table, column in (
        ("samples", "stratum"),
        ("samples", "screen_scores"),
        ("coverage_minutes", "stratum"),
    ):
        op.alter_column(table, column, server_default=None)


def downgrade() -> None:
    op.drop_index("ix_coverage_minutes_consumed", "coverage_minutes")
    op.drop_constraint(_KEY, "coverage_minutes", type_="primary")
    op.execute(
        "WITH counted AS (DELETE FROM coverage_minutes RETURNING *)"
        " INSERT INTO coverage_minutes (minute, source, hop, model, stratum, counter, count)"
        " SELECT minute, source, hop, model, 'unknown', counter, sum(count)"
        " FROM counted GROUP BY minute, source, hop, model, counter"
    )
    op.drop_column("coverage_minutes", "stratum")
    op.create_primary_key(_KEY, "coverage_minutes", ["minute", "source", "hop", "model", "counter"])
    op.drop_constraint(op.f("ck_samples_baseline_probability"), "samples", type_="check")
    for column in ("screen_scores", "baseline_probability", "stratum"):
        op.drop_column("samples", column)
