"""Messages on the local socket, from the plugin (PUSH, connects) to the sidecar (PULL, binds).

A message is a kind frame followed by its payload:

    b  header, vectors  block.encode_block: sampled rows of one engine step, block.MAX_ROWS at most
    c  coverage         record.encode_coverage
    s  status           CaptureStatus, the plugin's heartbeat

One message for many rows costs one system call and one queue slot. Policies go the other way, on
a socket of their own: see policy_channel. No pickle, no code.
"""

from typing import Final, Literal

import msgspec

from subtext_sidecar.contract.counters import RejectReason
from subtext_sidecar.contract.record import UNDECODABLE, VERSION, RecordError, Reports
from subtext_sidecar.contract.tenant import DEFAULT_TENANT, TenantName

BLOCK: Final = b"b"
COVERAGE: Final = b"c"
STATUS: Final = b"s"

# Far above any record, so that an oversized one arrives, is counted and is dead-lettered, while a runaway
# peer cannot fill the memory. ZeroMQ drops the connection over a larger frame and tells nobody.
MAX_FRAME_BYTES: Final = 16 << 20

HEARTBEAT_SECONDS: Final = 2.0

# Upper bounds of the overhead histograms, dense where medians are judged; the last bucket is
# everything above.
OVERHEAD_BUCKETS_SECONDS: Final = (
    2.5e-6,
    5e-6,
    7.5e-6,
    1e-5,
    1.25e-5,
    1.5e-5,
    2e-5,
    2.5e-5,
    3e-5,
    4e-5,
    5e-5,
    6e-5,
    8e-5,
    1e-4,
    1.5e-4,
    2.5e-4,
    5e-4,
    1e-3,
    2.5e-3,
    1e-2,
    5e-2,
)
# Engine steps, by whether any of their rows was taken: what capture costs when it idles, and when not.
Sampled = Literal["none", "some"]


class OverheadCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Host time that the hooks added to each engine step, as a histogram."""

    counts: tuple[int, ...]  # steps per bucket, len(OVERHEAD_BUCKETS_SECONDS) + 1
    sum_seconds: float


class CaptureStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What the plugin says about itself every HEARTBEAT_SECONDS."""

    v: int
    source: str  # the same as in its coverage counts
    model: str
    layer: int  # K; 0 when the configuration could not be read
    enabled: bool
    reason: str  # "ok", or why capture is off: a bounded label
    detail: str  # the same for people
    policy_version: str  # of the policy in force; "" is the one the engine started with
    sampling_probability: float  # of a request of the uniform stratum, by the policy in force
    errors: dict[str, int]  # by the hook that raised, or "sender"
    overhead: dict[Sampled, OverheadCounts]
    error_times: dict[str, float] = {}  # of the last one, in Unix seconds; a plugin of before tells none
    tenant: TenantName = DEFAULT_TENANT  # of the engine
    configurations: Reports = ()  # what it runs; a plugin of before tells none


_encoder = msgspec.msgpack.Encoder()
_status_decoder = msgspec.msgpack.Decoder(CaptureStatus)


def encode_status(status: CaptureStatus) -> bytes:
    """Return the status as msgpack."""
    return _encoder.encode(status)


def decode_status(payload: bytes) -> CaptureStatus:
    """Return the status, or raise RecordError."""
    try:
        status = _status_decoder.decode(payload)
    except msgspec.ValidationError as error:
        raise RecordError(RejectReason.BAD_FIELD, str(error)) from error
    except UNDECODABLE as error:
        raise RecordError(RejectReason.MALFORMED_HEADER, str(error)) from error
    if status.v != VERSION:
        raise RecordError(
            RejectReason.WRONG_VERSION, f"status version {status.v}, this reader knows {VERSION}"
        )
    for sampled, overhead in status.overhead.items():
        if len(overhead.counts) != len(OVERHEAD_BUCKETS_SECONDS) + 1:
            raise RecordError(
                RejectReason.BAD_FIELD, f"overhead of {sampled} has {len(overhead.counts)} buckets"
            )
    return status
