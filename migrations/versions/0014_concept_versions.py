"""Keep what each concept stood for, and let a flag say whether its false-positive rate is known.

Columns that may be empty and one with a constant default, so nothing is rewritten. Workers of the revision
before go on writing: what they raise is a lead.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_COLUMNS: dict[str, Any] = {
    "concept_version": sa.Integer(),
    "concept_digest": sa.Text(),
    "false_positive_rate_upper": sa.Double(),
    "calibration_requests": sa.Integer(),
    "calibration_digest": sa.Text(),
}
_CHECKS = {
    "status": "status IN ('lead', 'calibrated')",
    "calibrated": "status = 'lead' OR (false_positive_rate IS NOT NULL"
    " AND false_positive_rate_upper IS NOT NULL"
    " AND calibration_requests IS NOT NULL AND calibration_digest IS NOT NULL)",
}


def upgrade() -> None:
    op.create_table(
        "concept_versions",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("definition", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_concept_versions")),
        sa.UniqueConstraint("name", "version", name=op.f("uq_concept_versions_name_version")),
    )
    for name, kind in _COLUMNS.items():
        op.add_column("flags", sa.Column(name, kind, nullable=True))
    op.add_column("flags", sa.Column("status", sa.Text(), server_default=sa.text("'lead'"), nullable=False))
    # Flags are few: what they are checked for takes a moment.
    for name, condition in _CHECKS.items():
        op.execute(f"ALTER TABLE flags ADD CONSTRAINT ck_flags_{name} CHECK ({condition})")


def downgrade() -> None:
    for name in _CHECKS:
        op.drop_constraint(op.f(f"ck_flags_{name}"), "flags", type_="check")
    for name in ("status", *_COLUMNS):
        op.drop_column("flags", name)
    op.drop_table("concept_versions")
