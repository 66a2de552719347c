"""Read the samples of a trace in the order of their capture, up to a bound.

The index begins as the one of before, so queries of before use it too.
"""

from migrations import concurrent_index

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    concurrent_index.build("ix_samples_trace_id_captured_at_id", "samples", "trace_id", "captured_at", "id")
    concurrent_index.drop("ix_samples_trace_id", "samples")


def downgrade() -> None:
    concurrent_index.build("ix_samples_trace_id", "samples", "trace_id")
    concurrent_index.drop("ix_samples_trace_id_captured_at_id", "samples")
