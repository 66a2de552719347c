"""Keep periods of retention, legal holds and who lifted them, in tables to which rows are only added.

New tables, so no other is locked. Their triggers refuse every change to everybody, the owner too.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

# As service.store.identity derives it for the tenant "default".
_TENANT = sa.text(
    "COALESCE(NULLIF(current_setting('subtext.tenant'::text, true), ''::text)::uuid,"
    " 'cc7d071b-fe4c-56b2-8970-b2fd46ba7e52'::uuid)"
)
_REFUSE = """
    CREATE OR REPLACE FUNCTION retention_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'rows of % are only ever added: % is refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'restrict_violation';
    END
    $$
"""
_TABLES = ("retention_versions", "legal_holds", "legal_hold_lifts", "deletion_certificates")


def _tenant() -> sa.Column[object]:
    return sa.Column("tenant_id", sa.Uuid(), server_default=_TENANT, nullable=False)


def _at(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False)


def upgrade() -> None:
    _create_versions()
    _create_holds()
    _create_runs()
    op.execute(_REFUSE)
    for table in _TABLES:
        op.execute(
            f"CREATE TRIGGER {table}_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION retention_refuse_change()"
        )
        # In replication's mode too, which an administrator can give himself.
        op.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_is_append_only")


def _create_versions() -> None:
    op.create_table(
        "retention_versions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("model_id", sa.Uuid(), nullable=True),
        sa.Column("retention_class", sa.Text(), nullable=False),
        sa.Column("floor_days", sa.Integer(), nullable=True),
        sa.Column("ceiling_days", sa.Integer(), nullable=True),
        sa.Column("period_days", sa.Integer(), nullable=True),
        _at("in_force_from"),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Uuid(), nullable=False),
        sa.Column("key_name", sa.Text(), nullable=False),
        _at("set_at"),
        sa.Column("log_salt", postgresql.BYTEA(), nullable=True),
        _tenant(),
        sa.CheckConstraint(
            "retention_class IN ('ai_act', 'hipaa', 'minimal', 'custom')",
            name=op.f("ck_retention_versions_retention_class"),
        ),
        sa.CheckConstraint(
            "(retention_class <> 'ai_act' OR COALESCE(floor_days, 0) >= 183)"
            " AND (retention_class <> 'hipaa' OR COALESCE(floor_days, 0) >= 2192)"
            " AND (retention_class <> 'minimal' OR COALESCE(ceiling_days, 31) <= 30)",
            name=op.f("ck_retention_versions_bounds"),
        ),
        sa.CheckConstraint(
            "period_days >= 1 AND period_days >= COALESCE(floor_days, 1) OR period_days IS NULL",
            name=op.f("ck_retention_versions_floor"),
        ),
        sa.CheckConstraint(
            "ceiling_days IS NULL OR COALESCE(period_days <= ceiling_days, false)",
            name=op.f("ck_retention_versions_ceiling"),
        ),
        sa.CheckConstraint("in_force_from >= set_at", name=op.f("ck_retention_versions_in_force_from")),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name=op.f("fk_retention_versions_model_id_models")
        ),
        sa.ForeignKeyConstraint(
            ["key_id"], ["api_keys.id"], name=op.f("fk_retention_versions_key_id_api_keys")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_retention_versions")),
    )
    op.create_index(
        "ix_retention_versions_tenant_id_set_at_id", "retention_versions", ["tenant_id", "set_at", "id"]
    )


def _create_holds() -> None:
    time = sa.DateTime(timezone=True)
    op.create_table(
        "legal_holds",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("model_id", sa.Uuid(), nullable=True),
        sa.Column("captured_from", time, nullable=True),
        sa.Column("captured_to", time, nullable=True),
        sa.Column("request_names", postgresql.ARRAY(sa.Text()), nullable=True),
        sa.Column("capture_id", sa.Uuid(), nullable=True),
        sa.Column("trace_id", sa.Text(), nullable=True),
        sa.Column("concept", sa.Text(), nullable=True),
        sa.Column("subject", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=True),
        sa.Column("key_id", sa.Uuid(), nullable=False),
        sa.Column("key_name", sa.Text(), nullable=False),
        _at("placed_at"),
        sa.Column("log_salt", postgresql.BYTEA(), nullable=True),
        _tenant(),
        sa.CheckConstraint(
            "num_nonnulls(model_id, captured_from, captured_to, request_names, capture_id, trace_id,"
            " concept, subject) > 0",
            name=op.f("ck_legal_holds_scope"),
        ),
        sa.CheckConstraint("captured_from < captured_to", name=op.f("ck_legal_holds_period")),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_legal_holds_model_id_models")),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name=op.f("fk_legal_holds_key_id_api_keys")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_legal_holds")),
        sa.UniqueConstraint("id", "tenant_id", name=op.f("uq_legal_holds_id_tenant_id")),
    )
    op.create_index(
        "ix_legal_holds_tenant_id_placed_at_id", "legal_holds", ["tenant_id", "placed_at", "id"]
    )
    op.create_table(
        "legal_hold_lifts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("hold_id", sa.Uuid(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("step_before", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Uuid(), nullable=False),
        sa.Column("key_name", sa.Text(), nullable=False),
        _at("at"),
        sa.Column("log_salt", postgresql.BYTEA(), nullable=True),
        _tenant(),
        sa.CheckConstraint(
            "(step = 'asked' AND step_before IS NULL)"
            " OR (step = 'confirmed' AND step_before IS NOT DISTINCT FROM 'asked')",
            name=op.f("ck_legal_hold_lifts_step"),
        ),
        sa.ForeignKeyConstraint(
            ["hold_id", "tenant_id"],
            ["legal_holds.id", "legal_holds.tenant_id"],
            name="fk_legal_hold_lifts_hold_id_legal_holds",
        ),
        sa.ForeignKeyConstraint(
            ["hold_id", "step_before"],
            ["legal_hold_lifts.hold_id", "legal_hold_lifts.step"],
            name="fk_legal_hold_lifts_step_before_legal_hold_lifts",
        ),
        sa.ForeignKeyConstraint(
            ["key_id"], ["api_keys.id"], name=op.f("fk_legal_hold_lifts_key_id_api_keys")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_legal_hold_lifts")),
        sa.UniqueConstraint("hold_id", "step", name=op.f("uq_legal_hold_lifts_hold_id_step")),
        sa.UniqueConstraint("hold_id", "key_id", name=op.f("uq_legal_hold_lifts_hold_id_key_id")),
    )
    op.create_index(
        "ix_legal_hold_lifts_confirmed",
        "legal_hold_lifts",
        ["hold_id"],
        postgresql_where=sa.text("step = 'confirmed'"),
    )


def _create_runs() -> None:
    time = sa.DateTime(timezone=True)
    op.create_table(
        "retention_runs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("model_id", sa.Uuid(), nullable=False),
        sa.Column("version_id", sa.Uuid(), nullable=False),
        sa.Column("captured_before", time, nullable=False),
        sa.Column("checkpoint_size", sa.BigInteger(), nullable=True),
        sa.Column("removed", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("first_captured_at", time, nullable=True),
        sa.Column("last_captured_at", time, nullable=True),
        _at("started_at"),
        sa.Column("finished_at", time, nullable=True),
        _tenant(),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name=op.f("fk_retention_runs_model_id_models")
        ),
        sa.ForeignKeyConstraint(
            ["version_id"],
            ["retention_versions.id"],
            name=op.f("fk_retention_runs_version_id_retention_versions"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_retention_runs")),
    )
    op.create_index(
        "ix_retention_runs_tenant_id_started_at_id", "retention_runs", ["tenant_id", "started_at", "id"]
    )
    op.create_index(
        "uq_retention_runs_unfinished",
        "retention_runs",
        ["model_id"],
        unique=True,
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.create_table(
        "deletion_certificates",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("authority", sa.Uuid(), nullable=False),
        sa.Column("model_id", sa.Uuid(), nullable=True),
        sa.Column("document", postgresql.JSONB(), nullable=False),
        _at("issued_at"),
        sa.Column("log_salt", postgresql.BYTEA(), nullable=True),
        _tenant(),
        sa.CheckConstraint(
            "reason IN ('erasure', 'retention')", name=op.f("ck_deletion_certificates_reason")
        ),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name=op.f("fk_deletion_certificates_model_id_models")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deletion_certificates")),
        sa.UniqueConstraint("authority", name=op.f("uq_deletion_certificates_authority")),
    )
    op.create_index(
        "ix_deletion_certificates_tenant_id_issued_at_id",
        "deletion_certificates",
        ["tenant_id", "issued_at", "id"],
    )


def downgrade() -> None:
    op.drop_table("retention_runs")
    for table in reversed(_TABLES):
        op.drop_table(table)  # with its trigger
    op.execute("DROP FUNCTION retention_refuse_change()")
