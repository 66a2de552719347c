"""Find the samples of a trace."""

from migrations import concurrent_index

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    concurrent_index.build("ix_samples_trace_id", "samples", "trace_id")


def downgrade() -> None:
    concurrent_index.drop("ix_samples_trace_id", "samples")
