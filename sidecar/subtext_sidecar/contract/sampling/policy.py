"""What to look at, as data: the plugin's capture policy and the sidecar's screen policy. Pure.

Both can be replaced at run time. A policy is always whole: a field that is left out has its
default, never the value that was in force before, so that the text of a policy says all of it.

The service reads it as well, to tell what a proposed policy would have taken: `local.policy` is how the
two local processes pass one on.
"""

import hashlib
import re
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from msgspec import Meta

Rate = Annotated[float, Meta(ge=0.0, le=1.0)]
Budget = Annotated[float, Meta(ge=0.0, le=1e9)]


_AT: Final = re.compile(r" - at `\$\.?([^`]*)`\Z")
_UNKNOWN: Final = re.compile(r"unknown field `([^`]*)`")


class PolicyError(ValueError):
    """A policy that cannot be used; the message names the field and the fix."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field
        """In the document, as ``capture.window``; empty where it is the document itself."""


class CapturePolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which rows the plugin takes; see plugin.sampling for what the fields do together."""

    request_rate: Rate = 1.0  # share of requests
    decode_stride: Annotated[int, Meta(ge=1, le=1_000_000)] = 8  # tokens from one window to the next
    window: Annotated[int, Meta(ge=1, le=1024)] = 2  # adjacent decode positions in one window
    prompt_window: Annotated[int, Meta(ge=0, le=1024)] = 2  # last positions of the prompt
    skip_first: Annotated[int, Meta(ge=0)] = 10  # positions never taken: their norms dwarf the others
    max_rows_per_request: Annotated[int, Meta(ge=1, le=1_000_000)] = 64
    seed: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)] = 0
    rows_per_second: Budget = 0.0  # of all requests and engines together; 0: no budget
    # What is audited is the operator's to decide: whoever writes requests has a say only where he gives it.
    honour_opt_in: bool = False  # vllm_xargs {"subtext": "on"}: taken whatever the rate
    honour_opt_out: bool = False  # vllm_xargs {"subtext": "off"}: never taken
    honour_trace: bool = False  # vllm_xargs traceparent and tracestate: decide as the trace's samplers do


class ScreenPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which received rows the sidecar passes on to the decoder."""

    baseline_rate: Annotated[float, Meta(gt=0.0, le=1.0)] = 1.0  # share of requests passed unseen
    rows_per_second: Budget = 0.0  # that are decoded; 0: no budget
    baseline_share: Rate = 0.5  # part of the budget that is kept for the baseline
    anomaly_p_value: Annotated[float, Meta(gt=0.0, le=1.0)] | None = 0.01  # passed at or below; null: off
    seed: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)] = 0


class Policies(NamedTuple):
    """One policy document. ``capture`` None: the plugin's start policy, from additional_config."""

    version: str  # digest of the content; the same policies have the same version
    capture: CapturePolicy | None
    screen: ScreenPolicy


class _Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    capture: CapturePolicy | None = None
    screen: ScreenPolicy = ScreenPolicy()


_document_decoder: Final = msgspec.json.Decoder(_Document)


def parse_capture(value: Any, where: str) -> CapturePolicy:
    """Return the policy in a plain mapping, or raise PolicyError; ``where`` names it in messages."""
    try:
        policy = msgspec.convert(value, CapturePolicy)
    except msgspec.ValidationError as error:
        raise PolicyError(f"{where}: {error}") from error
    check_capture(policy, where)
    return policy


def parse_document(content: bytes, where: str) -> Policies:
    """Return both policies of a JSON document, or raise PolicyError naming the first bad field."""
    try:
        document = _document_decoder.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PolicyError(f"{where}: {error}", _field_of(str(error))) from error
    if document.capture is not None:
        check_capture(document.capture, f"{where}: capture")
    return Policies(_digest(document), document.capture, document.screen)


def check_capture(policy: CapturePolicy, where: str) -> None:
    """Raise PolicyError when fields contradict each other; each one's own range holds already."""
    if policy.window > policy.decode_stride:
        raise PolicyError(
            f"{where}.window is {policy.window}: it must be at most decode_stride ({policy.decode_stride})",
            "capture.window",
        )
    needed = policy.prompt_window + policy.window
    if policy.max_rows_per_request < needed:
        raise PolicyError(
            f"{where}.max_rows_per_request is {policy.max_rows_per_request}: it must be at least "
            f"prompt_window + window ({needed}), or nothing of an answer is sampled",
            "capture.max_rows_per_request",
        )
    if policy.honour_opt_in and not policy.rows_per_second:
        raise PolicyError(
            f"{where}.honour_opt_in is true without a budget, so that clients decide how much is decoded: "
            "set rows_per_second, of which they get at most half",
            "capture.honour_opt_in",
        )


def _field_of(message: str) -> str:
    """Return the field that msgspec's message names, as ``capture.window``; empty where it names none."""
    unknown = _UNKNOWN.search(message)
    at = _AT.search(message)
    names = [found.group(1) for found in (at, unknown) if found is not None and found.group(1)]
    return ".".join(names)


def _digest(document: _Document) -> str:
    return hashlib.sha256(msgspec.json.encode(document)).hexdigest()[:12]
