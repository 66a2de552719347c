"""Find the flags of a capture."""

from migrations import concurrent_index

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    concurrent_index.build("ix_flags_capture_id", "flags", "capture_id")


def downgrade() -> None:
    concurrent_index.drop("ix_flags_capture_id", "flags")
