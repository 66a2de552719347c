"""Keep the names that a capture can be looked up by: several for one, and one for several.

A table of its own, so no other is locked for longer than it takes to note a reference. Workers of the
revision before write no names: what they store behind the next revision is not found by its request's id.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "request_names",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("capture", sa.Uuid(), nullable=False),
        sa.Column("model_id", sa.Uuid(), nullable=False),
        sa.Column("capture_id", sa.Uuid(), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("captured_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_request_names_model_id_models")),
        sa.PrimaryKeyConstraint("name", "capture", name=op.f("pk_request_names")),
    )
    op.create_index(
        "ix_request_names_name_captured_at_capture", "request_names", ["name", "captured_at", "capture"]
    )


def downgrade() -> None:
    op.drop_table("request_names")
