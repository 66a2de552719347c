"""What is known about a request and about a row of it: declared here, carried by block and record alike.

This module is a contract. A field that is added here travels from the plugin to the decode workers by
itself: the block holds these structs, and the record's header is their fields. A new field needs a
default, so that what was sent before it existed can still be read. What a type demands is checked
wherever bytes come in, by the sidecar and by the worker, and so is that no text has a NUL.
"""

from typing import Annotated, Literal

import msgspec
from msgspec.structs import astuple

from subtext_sidecar.contract.configuration import DIGEST_PATTERN
from subtext_sidecar.contract.request_id import MAX_BYTES, MAX_FORMS

Phase = Literal["prefill", "decode"]
# Of an engine that serves one half of a request: it computes the prompt, or writes the answer to it.
Role = Literal["prefill", "decode"]
Name = Annotated[str, msgspec.Meta(min_length=1)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]  # what arrays and tables can hold
Probability = Annotated[float, msgspec.Meta(gt=0.0, le=1.0)]
TraceId = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]
SpanId = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{16}\Z")]
CaptureId = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]
ConfigurationDigest = Annotated[str, msgspec.Meta(pattern=DIGEST_PATTERN)]
CanaryNonce = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]
SubjectKey = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]
# In characters, of which an id never has more than bytes.
RequestName = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_BYTES)]


class RequestFacts(msgspec.Struct, frozen=True, kw_only=True, cache_hash=True):
    """What the rows of one request share."""

    request_id: Name  # external id (X-Request-Id): only ever to look up by, two requests may share it
    stratum: Name  # Stratum.UNIFORM, OPT_IN or CANARY
    trace_id: TraceId | None = None  # of the traceparent that came with it: only ever to look up by
    span_id: SpanId | None = None  # of the caller's span, from the same
    # The identity of this engine request, 128 random bits of the plugin's own. None: made by a plugin of
    # before, for which the external id is the identity.
    capture_id: CaptureId | None = None
    # What else its client may have sent: `request_id.forms` without the likeliest, which request_id is.
    request_names: Annotated[tuple[RequestName, ...], msgspec.Meta(max_length=MAX_FORMS)] = ()
    role: Role | None = None  # None: one engine served the whole request
    canary: CanaryNonce | None = None  # by which its runner knows it; None: it is traffic
    # Of the version of the plugin's configuration by which it was decided on. None: a plugin of before.
    configuration: ConfigurationDigest | None = None
    # Whose data it is, see `contract.subject`. None: nobody was named, or a plugin of before.
    subject: SubjectKey | None = None


class RowFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about one row besides its values."""

    position: Count  # token position in the request, 0 is the first prompt token
    token_id: Count  # the token at that position
    phase: Phase
    probability: Probability  # inclusion probability of this row by whatever reason
    reason: str  # why it was chosen, e.g. "decode", or "screen_anomaly" when only the screen did
    checksum: int  # CRC-32 of the vector bytes


def has_nul(*facts: RequestFacts | RowFacts) -> bool:
    """Return whether a text among all these fields has a NUL, which PostgreSQL cannot keep."""
    # Not a pattern of each type: that costs more than all else in a block.
    texts = [value for one in facts for value in astuple(one) if value.__class__ is str]
    names = [name for one in facts if one.__class__ is RequestFacts for name in one.request_names]
    return "\x00" in "".join(texts + names)
