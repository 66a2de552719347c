"""Blocks of version 1, in columns: an engine that was started before an upgrade still sends them.

A server is restarted seldom and its sidecar at once, so a sidecar reads the version before its own.
"""

from typing import Any, Final

import msgspec

VERSION: Final = 1


class _Header(msgspec.Struct):
    # What version 2 has alike, and checks itself.
    model: Any
    layer: Any
    dtype: Any
    d_model: Any
    captured_at: Any
    request: Any
    # What it has not.
    request_ids: list[str]
    strata: list[str]  # one a request
    position: list[int]
    token_id: list[int]
    is_prefill: list[bool]
    probability: list[float]
    reason: list[str]
    checksum: list[int]


_decoder = msgspec.msgpack.Decoder(_Header)
_ALIKE: Final = ("model", "layer", "dtype", "d_model", "captured_at", "request")
_OF_A_ROW: Final = ("position", "token_id", "phase", "probability", "reason", "checksum")


def upgraded(header_bytes: bytes) -> dict[str, Any]:
    """Return the header's fields as version 2 has them, of which it must still check the values.

    Raises msgspec's errors, and ValueError when columns differ in length.
    """
    header = _decoder.decode(header_bytes)
    rows = zip(
        header.position,
        header.token_id,
        ["prefill" if is_prefill else "decode" for is_prefill in header.is_prefill],
        header.probability,
        header.reason,
        header.checksum,
        strict=True,
    )
    requests = zip(header.request_ids, header.strata, strict=True)
    return {
        **{name: getattr(header, name) for name in _ALIKE},
        "requests": [{"request_id": request_id, "stratum": stratum} for request_id, stratum in requests],
        "rows": [dict(zip(_OF_A_ROW, row, strict=True)) for row in rows],
    }
