"""Configurations by their content: what each kind is, and the digest that rows and reports name it by.

This module is a contract: plugin, sidecar, worker and service take kinds and digests from it, so that one
content has one digest whoever tells it. It imports the standard library alone.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, NamedTuple

MAX_CONTENT_BYTES: Final = 256 * 1024
"""Of a content that is kept; of a longer one there is its digest alone."""
MAX_REPORTED_CHARACTERS: Final = 64 * 1024
"""Of a content that comes over the stream."""
MAX_DEPTH: Final = 32
"""Of what a content that comes over the stream nests; what writes answers stops at a few hundred."""
DIGEST_PATTERN: Final = r"\A[0-9a-f]{64}\Z"


class Kind(StrEnum):
    """What a configuration is of."""

    MODEL = "model"  # the audited model's revision, as its engine loaded it
    PLUGIN = "plugin"  # how an engine captures; it names its model and its capture policy
    CAPTURE_POLICY = "capture_policy"  # which rows an engine takes, as it follows it
    SCREEN_POLICY = "screen_policy"  # which rows a sidecar passes on, as it follows it
    ANOMALY_REFERENCE = "anomaly_reference"  # that sidecar or worker measures by
    DECODER = "decoder"  # with the thresholds of `verified`
    CONCEPTS = "concepts"  # that are watched for
    CONCEPT_CALIBRATION = "concept_calibration"  # of the concepts' rules
    WORKER = "worker"  # the thresholds of a worker; it names what it reads and judges with


class Configuration(NamedTuple):
    """One version of one kind."""

    kind: Kind
    digest: str
    """SHA-256 of the content, in hexadecimal digits."""
    content: str
    """JSON, as `canonical` writes it."""


def configuration(kind: Kind, content: Mapping[str, Any]) -> Configuration:
    """Return the version with this content, which must hold no secret: it is kept and shown."""
    written = canonical(content)
    return Configuration(kind, digest(written), written)


def canonical(content: Mapping[str, Any]) -> str:
    """Return the content as JSON: keys in order, no spaces, numbers that are not finite as text."""
    return json.dumps(
        _storable(content), sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False
    )


def digest(content: str) -> str:
    """Return the SHA-256 of a content as it is written."""
    return hashlib.sha256(content.encode("utf-8", "replace")).hexdigest()


def is_content(written: str) -> bool:
    """Tell whether a text is a content as `canonical` writes it, nested `MAX_DEPTH` deep at most.

    Other texts may be JSON and be stored, and then break whatever answers with them: a half of a surrogate
    pair, for one, is in no UTF-8.
    """
    try:
        content = json.loads(written)
        return isinstance(content, dict) and _depth(content) <= MAX_DEPTH and canonical(content) == written
    except (ValueError, RecursionError):
        return False


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        # What no UTF-8 is cannot be stored.
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {_storable(str(name)): _storable(one) for name, one in value.items()}
    if isinstance(value, Sequence):
        return [_storable(one) for one in value]
    return value
