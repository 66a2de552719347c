"""Create every table of the first contract."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("secret_sha256", postgresql.BYTEA(), nullable=False),
        sa.Column("scopes", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("secret_sha256", name=op.f("uq_api_keys_secret_sha256")),
    )
    op.create_table(
        "coverage_minutes",
        sa.Column("minute", sa.DateTime(timezone=True), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("hop", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("counter", sa.Text(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "minute", "source", "hop", "model", "counter", name=op.f("pk_coverage_minutes")
        ),
    )
    op.create_index("ix_coverage_minutes_minute", "coverage_minutes", ["minute"], unique=False)
    op.create_table(
        "models",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("d_model", sa.Integer(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_models")),
        sa.UniqueConstraint("name", name=op.f("uq_models_name")),
    )
    op.create_table(
        "decoders",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("model_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("layer", sa.Integer(), nullable=False),
        sa.Column("fve_baseline", sa.Double(), nullable=False),
        sa.Column("shuffled_fve_p95", sa.Double(), nullable=False),
        sa.Column("calibration_n", sa.Integer(), nullable=False),
        sa.Column("card", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_decoders_model_id_models")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_decoders")),
        sa.UniqueConstraint("digest", name=op.f("uq_decoders_digest")),
    )
    op.create_index(op.f("ix_decoders_model_id"), "decoders", ["model_id"], unique=False)
    op.create_table(
        "samples",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("model_id", sa.Uuid(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("layer", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("token_id", sa.Integer(), nullable=False),
        sa.Column("token_text", sa.Text(), nullable=False),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("norm", sa.Double(), nullable=False),
        sa.Column("inclusion_probability", sa.Double(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("captured_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("stored_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "inclusion_probability > 0 AND inclusion_probability <= 1", name=op.f("ck_samples_probability")
        ),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_samples_model_id_models")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_samples")),
        sa.UniqueConstraint(
            "model_id",
            "request_id",
            "layer",
            "position",
            name=op.f("uq_samples_model_id_request_id_layer_position"),
        ),
    )
    op.create_index("ix_samples_captured_at_id", "samples", ["captured_at", "id"], unique=False)
    op.create_index("ix_samples_request_id", "samples", ["request_id"], unique=False)
    op.create_table(
        "explanations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("sample_id", sa.Uuid(), nullable=False),
        sa.Column("decoder_id", sa.Uuid(), nullable=False),
        sa.Column("captured_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("well_formed", sa.Boolean(), nullable=False),
        sa.Column("cosine", sa.Double(), nullable=False),
        sa.Column("fve", sa.Double(), nullable=False),
        sa.Column("verified", sa.Boolean(), nullable=False),
        sa.Column("anomaly_score", sa.Double(), nullable=True),
        sa.Column("anomaly_p_value", sa.Double(), nullable=True),
        sa.Column("anomaly_calibration_n", sa.Integer(), nullable=True),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["decoder_id"], ["decoders.id"], name=op.f("fk_explanations_decoder_id_decoders")
        ),
        sa.ForeignKeyConstraint(
            ["sample_id"], ["samples.id"], name=op.f("fk_explanations_sample_id_samples")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_explanations")),
        sa.UniqueConstraint("sample_id", "decoder_id", name=op.f("uq_explanations_sample_id_decoder_id")),
    )
    op.create_index("ix_explanations_captured_at_id", "explanations", ["captured_at", "id"], unique=False)
    op.create_index("ix_explanations_decoder_id", "explanations", ["decoder_id"], unique=False)
    op.create_table(
        "flags",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("model_id", sa.Uuid(), nullable=False),
        sa.Column("decoder_id", sa.Uuid(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("layer", sa.Integer(), nullable=False),
        sa.Column("concept", sa.Text(), nullable=False),
        sa.Column("concepts_digest", sa.Text(), nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("positions_matched", sa.Integer(), nullable=False),
        sa.Column("positions_required", sa.Integer(), nullable=False),
        sa.Column("positions_verified", sa.Integer(), nullable=False),
        sa.Column("false_positive_rate", sa.Double(), nullable=True),
        sa.Column("first_captured_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_captured_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column(
            "updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.ForeignKeyConstraint(["decoder_id"], ["decoders.id"], name=op.f("fk_flags_decoder_id_decoders")),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_flags_model_id_models")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_flags")),
        sa.UniqueConstraint(
            "model_id",
            "request_id",
            "layer",
            "concept",
            "decoder_id",
            name=op.f("uq_flags_model_id_request_id_layer_concept_decoder_id"),
        ),
    )
    op.create_index("ix_flags_created_at_id", "flags", ["created_at", "id"], unique=False)
    op.create_index("ix_flags_last_captured_at", "flags", ["last_captured_at"], unique=False)
    op.create_index("ix_flags_request_id", "flags", ["request_id"], unique=False)
    op.create_table(
        "concept_matches",
        sa.Column("explanation_id", sa.Uuid(), nullable=False),
        sa.Column("concept", sa.Text(), nullable=False),
        sa.Column("matcher", sa.Text(), nullable=False),
        sa.Column("score", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["explanation_id"],
            ["explanations.id"],
            name=op.f("fk_concept_matches_explanation_id_explanations"),
        ),
        sa.PrimaryKeyConstraint("explanation_id", "concept", name=op.f("pk_concept_matches")),
    )
    op.create_index(
        "ix_concept_matches_concept_explanation_id",
        "concept_matches",
        ["concept", "explanation_id"],
        unique=False,
    )


def downgrade() -> None:
    op.drop_table("concept_matches")
    op.drop_table("flags")
    op.drop_table("explanations")
    op.drop_table("samples")
    op.drop_table("decoders")
    op.drop_table("models")
    op.drop_table("coverage_minutes")
    op.drop_table("api_keys")
