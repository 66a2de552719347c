"""The streams between sidecar and workers: their names, fields and bounds, stated here and nowhere else.

This module is a contract: whoever writes or reads a stream takes it from here, because two writers that
trim one stream to different lengths delete each other's entries. It imports nothing.

subtext:activations  h, a   one sample; its writer bounds it by bytes
subtext:coverage     h      one count

One of each a deployment; shards would append ":{k}". What must not be used goes to `dead_letters`.
"""

from typing import Final

ACTIVATIONS_STREAM: Final = "subtext:activations"
COVERAGE_STREAM: Final = "subtext:coverage"

CLUSTER_REFUSAL: Final = (
    "Redis runs in cluster mode, where the streams lie on different nodes and an entry cannot move between"
    " them in one step; give the URL of a server with cluster-enabled no"
)

WORKER_GROUP: Final = "subtext-workers"  # reads ACTIVATIONS_STREAM
COVERAGE_GROUP: Final = "subtext-coverage"  # reads COVERAGE_STREAM

FIELD_HEADER: Final = b"h"
FIELD_VECTOR: Final = b"a"
FIELD_REASON: Final = b"reason"  # dead letters only: a bounded label
FIELD_ERROR: Final = b"error"  # dead letters only: the reason's detail

# The newest entries that a stream keeps at least; Redis trims whole nodes, so it may hold some more.
MAX_COVERAGE_ENTRIES: Final = 100_000
