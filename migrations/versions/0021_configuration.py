"""Keep which configuration was in force when, and let samples and explanations name theirs.

New tables, and two columns that may be empty, so nothing is rewritten. They have no foreign key: what
they name can be neither changed nor deleted, and a check of each row would lock the one version that all
workers name at once.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

_FIXED = ("configuration_versions", "configuration_contents")
_TENANT = "COALESCE(NULLIF(current_setting('subtext.tenant'::text, true), ''::text)::uuid, '%s'::uuid)"
_DEFAULT_TENANT = "cc7d071b-fe4c-56b2-8970-b2fd46ba7e52"
_MAX_CONTENT_BYTES = 262144


def upgrade() -> None:
    now = sa.text("now()")
    op.create_table(
        "configuration_versions",
        sa.Column("id", sa.Integer(), sa.Identity(), nullable=False),
        _tenant(),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_configuration_versions")),
        sa.UniqueConstraint(
            "tenant_id", "kind", "digest", name=op.f("uq_configuration_versions_tenant_id_kind_digest")
        ),
    )
    op.create_table(
        "configuration_contents",
        sa.Column("version_id", sa.Integer(), nullable=False),
        _tenant(),
        sa.Column("content", postgresql.JSON(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.CheckConstraint(
            f"octet_length(content::text) <= {_MAX_CONTENT_BYTES}",
            name=op.f("ck_configuration_contents_size"),
        ),
        sa.ForeignKeyConstraint(
            ["version_id"],
            ["configuration_versions.id"],
            name=op.f("fk_configuration_contents_version_id_configuration_versions"),
        ),
        sa.PrimaryKeyConstraint("version_id", name=op.f("pk_configuration_contents")),
    )
    op.create_table(
        "configuration_periods",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        _tenant(),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("layer", sa.Integer(), nullable=True),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("hop", sa.Text(), nullable=False),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "began_at <= last_seen_at AND (ended_at IS NULL OR last_seen_at <= ended_at)",
            name=op.f("ck_configuration_periods_times"),
        ),
        sa.ForeignKeyConstraint(
            ["version_id"],
            ["configuration_versions.id"],
            name=op.f("fk_configuration_periods_version_id_configuration_versions"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_configuration_periods")),
    )
    for name, columns in (
        ("version_id", ["version_id"]),
        ("source_kind", ["source", "kind"]),
        ("model_began_at", ["model", "began_at"]),
        ("began_at", ["began_at"]),
        ("last_seen_at", ["last_seen_at"]),
    ):
        op.create_index(f"ix_configuration_periods_{name}", "configuration_periods", columns)
    op.execute(
        "CREATE FUNCTION subtext_refuse_configuration_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE EXCEPTION '% never changes', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';"
        " END $$"
    )
    for table in _FIXED:
        op.execute(
            f"CREATE TRIGGER fixed BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION subtext_refuse_configuration_change()"
        )
    for table in ("samples", "explanations"):
        op.add_column(table, sa.Column("configuration_id", sa.Integer(), nullable=True))


def downgrade() -> None:
    for table in ("explanations", "samples"):
        op.drop_column(table, "configuration_id")
    op.drop_table("configuration_periods")
    op.drop_table("configuration_contents")
    op.drop_table("configuration_versions")
    op.execute("DROP FUNCTION subtext_refuse_configuration_change()")


def _tenant() -> "sa.Column[object]":
    return sa.Column(
        "tenant_id", sa.Uuid(), server_default=sa.text(_TENANT % _DEFAULT_TENANT), nullable=False
    )
