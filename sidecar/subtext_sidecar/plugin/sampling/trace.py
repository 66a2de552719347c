"""Read what W3C Trace Context and OpenTelemetry's ``ot`` entry say about sampling. Pure.

Consistent sampling: every participant of a trace compares the same 56 random bits R with the
rejection threshold T of its own rate, and samples when R >= T. What one sampler takes, every
sampler with a higher rate takes too. R is the explicit ``rv`` or else the low 56 bits of the
trace id; ``th`` is the threshold that the samplers before us applied.
https://opentelemetry.io/docs/specs/otel/trace/tracestate-probability-sampling/
"""

import re
from typing import Final, NamedTuple

from subtext_sidecar.contract.counters import TraceFault

_PARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_OT_LIST: Final = re.compile(r"[a-z][a-z0-9]*:[A-Za-z0-9._-]*(;[a-z][a-z0-9]*:[A-Za-z0-9._-]*)*")
_RV: Final = re.compile(r"[0-9a-f]{14}")
_TH: Final = re.compile(r"[0-9a-f]{1,14}")

_DIGITS: Final = 14  # of 56 bits
_SAMPLED: Final = 0x01
_MAX_STATE_CHARACTERS: Final = 16 * 1024
_MAX_OT_CHARACTERS: Final = 256


class Trace(NamedTuple):
    """What a request's trace says. ``faults`` names what was there, but malformed, and is ignored."""

    randomness: int | None  # R; None: no usable trace
    upstream_threshold: int | None  # th; None: not given
    faults: tuple[TraceFault, ...]


class Parent(NamedTuple):
    """A well-formed traceparent."""

    trace_id: str  # 32 hexadecimal digits, not all 0
    span_id: str  # of the caller's span: 16 hexadecimal digits, not all 0
    is_sampled: bool

    @property
    def randomness(self) -> int:
        """The bits that the trace id has for R."""
        return int(self.trace_id[-_DIGITS:], 16)


def read_trace(traceparent: object, tracestate: object) -> Trace:
    """Return what the two headers' values say; None stands for a header that is not there."""
    parent = read_parent(traceparent)
    if parent is None:
        # Without its parent a state means nothing: the W3C's rule.
        faults: tuple[TraceFault, ...] = () if traceparent is None else (TraceFault.TRACEPARENT,)
        return Trace(None, None, faults if tracestate is None else (*faults, TraceFault.TRACESTATE))
    entries = {} if tracestate is None else _read_state(tracestate)
    if entries is None:
        return Trace(parent.randomness, None, (TraceFault.TRACESTATE,))
    return _combine(parent, entries.get("rv"), entries.get("th"))


def _combine(parent: Parent, rv: str | None, th: str | None) -> Trace:
    found: list[TraceFault] = []
    randomness, upstream = parent.randomness, None
    if rv is not None:
        if _RV.fullmatch(rv):
            randomness = int(rv, 16)
        else:
            found.append(TraceFault.RV)
    if th is not None:
        if _TH.fullmatch(th):
            upstream = int(th.ljust(_DIGITS, "0"), 16)
        else:
            found.append(TraceFault.TH)
    if upstream is not None and parent.is_sampled and randomness < upstream:
        found.append(TraceFault.INCONSISTENT_TH)
    return Trace(randomness, upstream, tuple(found))


def read_parent(value: object) -> Parent | None:
    """Return what a ``traceparent`` says, None when it is not there or malformed. Never raises."""
    matched = _PARENT.fullmatch(value) if isinstance(value, str) else None
    if matched is None:
        return None
    version, trace_id, span_id, flags, rest = matched.groups()
    # Later versions may append fields; version 00 may not, and ff is none.
    if version == "ff" or (version == "00" and rest is not None):
        return None
    if not int(trace_id, 16) or not int(span_id, 16):
        return None
    return Parent(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))


def _read_state(value: object) -> dict[str, str] | None:
    """Return the sub-keys of the ``ot`` entry, empty when there is none; None when it is malformed."""
    if not isinstance(value, str) or len(value) > _MAX_STATE_CHARACTERS:
        return None
    members = [member.strip(" \t") for member in value.split(",")]
    ours = [member.removeprefix("ot=") for member in members if member.startswith("ot=")]
    if not ours:
        return {}
    entry = ours[0]
    if len(ours) > 1 or len(entry) > _MAX_OT_CHARACTERS or not _OT_LIST.fullmatch(entry):
        return None
    pairs = [pair.split(":", 1) for pair in entry.split(";")]
    entries = dict(pairs)
    return entries if len(entries) == len(pairs) else None
