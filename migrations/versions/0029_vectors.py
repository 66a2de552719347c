"""Keep activations for a while, encrypted under a key of each tenant's own.

Two tables of their own, so no other is locked.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None

# The tenant that a transaction names, else the one of stores of before there were tenants.
_TENANT = (
    "COALESCE(NULLIF(current_setting('subtext.tenant', true), '')::uuid,"
    " 'cc7d071b-fe4c-56b2-8970-b2fd46ba7e52'::uuid)"
)


def upgrade() -> None:
    time = sa.DateTime(timezone=True)
    op.create_table(
        "vector_keys",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("wrapped_by", sa.Text(), nullable=False),
        sa.Column("wrapped", postgresql.BYTEA(), nullable=True),
        sa.Column("created_at", time, server_default=sa.func.now(), nullable=False),
        sa.Column("retired_at", time, nullable=True),
        sa.Column("destroyed_at", time, nullable=True),
        _tenant(),
        sa.CheckConstraint(
            "(wrapped IS NULL) = (destroyed_at IS NOT NULL)", name=op.f("ck_vector_keys_destroyed")
        ),
        sa.CheckConstraint(
            "destroyed_at IS NULL OR retired_at IS NOT NULL", name=op.f("ck_vector_keys_retired")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_vector_keys")),
    )
    op.create_index(
        "uq_vector_keys_tenant_id_in_use",
        "vector_keys",
        ["tenant_id"],
        unique=True,
        postgresql_where=sa.text("retired_at IS NULL"),
    )
    op.create_index("ix_vector_keys_tenant_id", "vector_keys", ["tenant_id"])
    op.create_table(
        "vectors",
        sa.Column("sample_id", sa.Uuid(), nullable=False),
        sa.Column("captured_at", time, nullable=False),
        sa.Column("key_id", sa.Uuid(), nullable=False),
        sa.Column("dtype", sa.Text(), nullable=False),
        sa.Column("d_model", sa.Integer(), nullable=False),
        sa.Column("nonce", postgresql.BYTEA(), nullable=False),
        sa.Column("ciphertext", postgresql.BYTEA(), nullable=False),
        sa.Column("expires_at", time, nullable=False),
        _tenant(),
        sa.CheckConstraint("dtype IN ('float32', 'bfloat16', 'float16')", name=op.f("ck_vectors_dtype")),
        sa.CheckConstraint("octet_length(nonce) = 12", name=op.f("ck_vectors_nonce")),
        sa.PrimaryKeyConstraint("sample_id", "captured_at", name=op.f("pk_vectors")),
    )
    op.create_index("ix_vectors_expires_at", "vectors", ["expires_at"])
    # Nothing compresses a ciphertext; trying costs time with each row.
    op.execute("ALTER TABLE vectors ALTER COLUMN ciphertext SET STORAGE EXTERNAL")


def downgrade() -> None:
    op.drop_table("vectors")
    op.drop_table("vector_keys")


def _tenant() -> "sa.Column[object]":
    return sa.Column("tenant_id", sa.Uuid(), server_default=sa.text(_TENANT), nullable=False)
