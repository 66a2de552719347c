"""A policy on its way from the sidecar to the plugin, again and again. Pure.

What a policy says is `contract.sampling.policy`, which is known here by its names.
"""

from typing import Final

import msgspec

from subtext_sidecar.contract.sampling.policy import (
    CapturePolicy,
    Policies,
    PolicyError,
    ScreenPolicy,
    check_capture,
    parse_capture,
    parse_document,
)

__all__ = [
    "START_VERSION",
    "VERSION",
    "CapturePolicy",
    "Policies",
    "PolicyError",
    "PolicyUpdate",
    "ScreenPolicy",
    "check_capture",
    "decode_update",
    "encode_update",
    "parse_capture",
    "parse_document",
    "share",
]

VERSION: Final = 1
START_VERSION: Final = ""  # names the policy that a process was started with


class PolicyUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """What the sidecar tells the plugin, again and again. ``capture`` None: back to the start policy."""

    version: str
    capture: CapturePolicy | None
    v: int = VERSION


_update_encoder: Final = msgspec.msgpack.Encoder()
_update_decoder: Final = msgspec.msgpack.Decoder(PolicyUpdate)


def share(policy: CapturePolicy, engines: int) -> CapturePolicy:
    """Return the policy of one of so many engines: all of them together keep within its budget."""
    return msgspec.structs.replace(policy, rows_per_second=policy.rows_per_second / engines)


def encode_update(update: PolicyUpdate) -> bytes:
    """Return the update as msgpack."""
    return _update_encoder.encode(update)


def decode_update(payload: bytes) -> PolicyUpdate:
    """Return the update, or raise PolicyError: it is checked like any other policy."""
    try:
        update = _update_decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PolicyError(f"policy update: {error}") from error
    if update.v != VERSION:
        raise PolicyError(f"policy update: version {update.v}, this reader knows {VERSION}")
    if update.capture is not None:
        check_capture(update.capture, "policy update: capture")
    return update
