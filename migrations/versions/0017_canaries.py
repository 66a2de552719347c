"""Keep what was read of canaries in tables of their own, where no query of the traffic meets them.

Two new tables, so no other is locked for longer than it takes to note a reference.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    now = sa.text("now()")
    op.create_table(
        "canary_readings",
        sa.Column("sample_id", sa.Uuid(), nullable=False),
        sa.Column("decoder_id", sa.Uuid(), nullable=False),
        sa.Column("model_id", sa.Uuid(), nullable=False),
        sa.Column("nonce", sa.Text(), nullable=False),
        sa.Column("capture_id", sa.Uuid(), nullable=False),
        sa.Column("layer", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("captured_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("fve", sa.Float(), nullable=False),
        sa.Column("verified", sa.Boolean(), nullable=False),
        sa.Column("concepts", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("stored_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.ForeignKeyConstraint(
            ["decoder_id"], ["decoders.id"], name=op.f("fk_canary_readings_decoder_id_decoders")
        ),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name=op.f("fk_canary_readings_model_id_models")
        ),
        sa.PrimaryKeyConstraint("sample_id", "decoder_id", name=op.f("pk_canary_readings")),
    )
    op.create_index("ix_canary_readings_nonce", "canary_readings", ["nonce"])
    op.create_index("ix_canary_readings_capture_id", "canary_readings", ["capture_id"])
    op.create_table(
        "canary_flags",
        sa.Column("capture_id", sa.Uuid(), nullable=False),
        sa.Column("layer", sa.Integer(), nullable=False),
        sa.Column("decoder_id", sa.Uuid(), nullable=False),
        sa.Column("concept", sa.Text(), nullable=False),
        sa.Column("nonce", sa.Text(), nullable=False),
        sa.Column("positions_matched", sa.Integer(), nullable=False),
        sa.Column("positions_required", sa.Integer(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("rule_is_calibrated", sa.Boolean(), nullable=False),
        sa.Column("stored_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.ForeignKeyConstraint(
            ["decoder_id"], ["decoders.id"], name=op.f("fk_canary_flags_decoder_id_decoders")
        ),
        sa.CheckConstraint("status IN ('lead', 'calibrated')", name=op.f("ck_canary_flags_status")),
        sa.PrimaryKeyConstraint(
            "capture_id", "layer", "decoder_id", "concept", name=op.f("pk_canary_flags")
        ),
    )
    op.create_index("ix_canary_flags_nonce", "canary_flags", ["nonce"])


def downgrade() -> None:
    op.drop_table("canary_flags")
    op.drop_table("canary_readings")
