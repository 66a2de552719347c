"""Find the samples of a capture."""

from migrations import concurrent_index

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    concurrent_index.build("ix_samples_capture_id", "samples", "capture_id")


def downgrade() -> None:
    concurrent_index.drop("ix_samples_capture_id", "samples")
