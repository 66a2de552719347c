"""Keep which requests were tested together for being anomalies, and what came out for each.

Two tables of their own, so no other is locked for longer than it takes to note a reference.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "anomaly_windows",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("decoder_id", sa.Uuid(), nullable=False),
        sa.Column("reference_digest", sa.Text(), nullable=False),
        sa.Column("fdr", sa.Float(), nullable=False),
        sa.Column("requests", sa.Integer(), nullable=False),
        sa.Column("discoveries", sa.Integer(), nullable=False),
        sa.Column("threshold", sa.Float(), nullable=True),
        _time("started_at"),
        _time("ended_at"),
        _time("closed_at"),
        sa.CheckConstraint("fdr > 0 AND fdr < 1", name=op.f("ck_anomaly_windows_fdr")),
        sa.CheckConstraint(
            "discoveries >= 0 AND discoveries <= requests", name=op.f("ck_anomaly_windows_discoveries")
        ),
        sa.ForeignKeyConstraint(
            ["decoder_id"], ["decoders.id"], name=op.f("fk_anomaly_windows_decoder_id_decoders")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_anomaly_windows")),
    )
    op.create_index(
        "ix_anomaly_windows_decoder_id_closed_at", "anomaly_windows", ["decoder_id", "closed_at"]
    )
    _create_tests()


def downgrade() -> None:
    op.drop_table("request_tests")
    op.drop_table("anomaly_windows")


def _time(name: str, *, default: bool = False) -> "sa.Column[object]":
    return sa.Column(
        name,
        sa.DateTime(timezone=True),
        nullable=False,
        server_default=sa.func.now() if default else None,
    )


def _create_tests() -> None:
    references = {"window_id": "anomaly_windows", "model_id": "models", "decoder_id": "decoders"}
    checks = {
        "p_value": "p_value > 0 AND p_value <= 1",
        "q_value": "q_value > 0 AND q_value <= 1",
        "rows": "cardinality(positions) = cardinality(row_p_values)",
    }
    op.create_table(
        "request_tests",
        sa.Column("id", sa.Uuid(), nullable=False),
        *(sa.Column(name, sa.Uuid(), nullable=False) for name in references),
        sa.Column("capture_id", sa.Uuid(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("layer", sa.Integer(), nullable=False),
        sa.Column("p_value", sa.Float(), nullable=False),
        sa.Column("q_value", sa.Float(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("calibration_n", sa.Integer(), nullable=False),
        sa.Column("positions", postgresql.ARRAY(sa.Integer()), nullable=False),
        sa.Column("row_p_values", postgresql.ARRAY(sa.Double()), nullable=False),
        sa.Column("is_discovery", sa.Boolean(), nullable=False),
        _time("first_captured_at"),
        _time("last_captured_at"),
        _time("tested_at", default=True),
        *(
            sa.CheckConstraint(condition, name=op.f(f"ck_request_tests_{name}"))
            for name, condition in checks.items()
        ),
        *(
            sa.ForeignKeyConstraint([name], [f"{table}.id"], name=op.f(f"fk_request_tests_{name}_{table}"))
            for name, table in references.items()
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_request_tests")),
        sa.UniqueConstraint(
            "capture_id",
            "model_id",
            "decoder_id",
            "layer",
            name=op.f("uq_request_tests_capture_id_model_id_decoder_id_layer"),
        ),
    )
    op.create_index("ix_request_tests_window_id", "request_tests", ["window_id"])
    op.create_index(
        "ix_request_tests_discoveries",
        "request_tests",
        ["tested_at", "id"],
        postgresql_where=sa.text("is_discovery"),
    )
