"""The streams between sidecar and workers: their names, fields and bounds, stated here and nowhere else.

This module is a contract: whoever writes or reads a stream takes it from here, because two writers that
trim one stream to different lengths delete each other's entries. It imports the standard library alone.

subtext:activations:{MODEL:LAYER}  h, a   one sample; its writer bounds it by bytes
subtext:coverage                   h      one count

There is a stream for each model and layer, which all versions of their decoder read; its braces keep it
and what is named after it together where keys are sharded. What must not be used goes to `dead_letters`.
"""

import hashlib
from functools import lru_cache
from typing import Final
from urllib.parse import quote

_ACTIVATIONS: Final = "subtext:activations"
ACTIVATIONS_PATTERN: Final = f"{_ACTIVATIONS}:{{*}}"
"""Matches the streams of all models and layers, and none of dead letters."""
OLD_ACTIVATIONS_STREAM: Final = _ACTIVATIONS
"""One for all models and layers, until 2026-11; workers move what they find there."""
COVERAGE_STREAM: Final = "subtext:coverage"

CLUSTER_REFUSAL: Final = (
    "Redis runs in cluster mode, where the streams lie on different nodes and an entry cannot move between"
    " them in one step; give the URL of a server with cluster-enabled no"
)

WORKER_GROUP: Final = "subtext-workers"  # reads the streams of activations
COVERAGE_GROUP: Final = "subtext-coverage"  # reads COVERAGE_STREAM

_MAX_NAME_CHARACTERS: Final = 160


@lru_cache(maxsize=64)
def activations_stream(model: str, layer: int) -> str:
    """Return the stream of a model, by its served name, and a layer.

    The name holds ASCII letters, digits and ``_.-~%`` only; of a longer one there is a digest.
    """
    name = quote(model, safe="", errors="replace")
    if len(name) > _MAX_NAME_CHARACTERS:
        digest = hashlib.sha256(model.encode("utf-8", "replace")).hexdigest()[:32]
        name = f"{name[:_MAX_NAME_CHARACTERS]}~{digest}"
    return f"{_ACTIVATIONS}:{{{name}:{layer}}}"


FIELD_HEADER: Final = b"h"
FIELD_VECTOR: Final = b"a"
FIELD_REASON: Final = b"reason"  # dead letters only: a bounded label
FIELD_ERROR: Final = b"error"  # dead letters only: the reason's detail

# The newest entries that a stream keeps at least; Redis trims whole nodes, so it may hold some more.
MAX_COVERAGE_ENTRIES: Final = 100_000
