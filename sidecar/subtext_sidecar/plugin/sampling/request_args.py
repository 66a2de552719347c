"""What the sender of a request may say about sampling it, through ``vllm_xargs``. Pure.

``{"subtext": "on"}`` and ``"off"`` are the client's own wish; ``traceparent`` and ``tracestate``
come from a gateway that forwards the headers, because vLLM's workers never see them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from subtext_sidecar.contract.counters import IGNORED, CounterName, PluginCounter, Stratum
from subtext_sidecar.contract.facts import RequestFacts, Role
from subtext_sidecar.local.policy import CapturePolicy
from subtext_sidecar.plugin.sampling.trace import read_parent, read_trace

WISH: Final = "subtext"
TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"

# Read off their class once: every request comes by here.
_UNIFORM: Final = Stratum.UNIFORM
_OPT_IN: Final = Stratum.OPT_IN
_OPT_OUT: Final = Stratum.OPT_OUT
_TRACED: Final = PluginCounter.REQUESTS_TRACED
_OPT_IN_IGNORED: Final = PluginCounter.OPT_IN_NOT_HONOURED
_OPT_OUT_IGNORED: Final = PluginCounter.OPT_OUT_NOT_HONOURED


class RequestArgs(NamedTuple):
    """What was said and is honoured, and what else to count about it."""

    stratum: Stratum
    randomness: int | None  # of the trace; None: the request's own hash decides
    counters: tuple[CounterName, ...]
    canary: str | None = None  # nonce of the operator's canary; None: it is traffic


NOTHING_SAID: Final = RequestArgs(_UNIFORM, None, ())


def read_request_args(policy: CapturePolicy, extra_args: Mapping[str, Any] | None) -> RequestArgs:
    """Return what the policy honours. What is malformed is ignored and counted, never an error."""
    if not extra_args:
        return NOTHING_SAID
    stratum, counters = _stratum_of(policy, extra_args.get(WISH))
    traceparent, tracestate = extra_args.get(TRACEPARENT), extra_args.get(TRACESTATE)
    is_traced = traceparent is not None or tracestate is not None
    if stratum != _UNIFORM or not policy.honour_trace or not is_traced:
        return RequestArgs(stratum, None, counters)
    trace = read_trace(traceparent, tracestate)
    counters += tuple(IGNORED[fault] for fault in trace.faults)
    if trace.randomness is not None:
        counters += (_TRACED,)
    return RequestArgs(stratum, trace.randomness, counters)


def request_facts(
    client_ids: Sequence[str],
    stratum: Stratum,
    extra_args: Mapping[str, Any] | None,
    capture_id: str,
    role: Role | None = None,
    *,
    canary: str | None = None,
    configuration: str | None = None,
    subject: str | None = None,
) -> RequestFacts:
    """Return what the rows of a sampled request carry on about it; ``client_ids`` has the likeliest first.

    A malformed ``traceparent`` is none. Its ids are taken whatever the policy honours: they decide nothing.
    """
    parent = read_parent(extra_args.get(TRACEPARENT)) if extra_args else None
    return RequestFacts(
        request_id=client_ids[0],
        request_names=tuple(client_ids[1:]),
        stratum=stratum,
        capture_id=capture_id,
        trace_id=None if parent is None else parent.trace_id,
        span_id=None if parent is None else parent.span_id,
        role=role,
        canary=canary,
        configuration=configuration,
        subject=subject,
    )


def _stratum_of(policy: CapturePolicy, wish: object) -> tuple[Stratum, tuple[CounterName, ...]]:
    if wish is None:
        return _UNIFORM, ()
    if wish == "on":
        return (_OPT_IN, ()) if policy.honour_opt_in else (_UNIFORM, (_OPT_IN_IGNORED,))
    if wish == "off":
        return (_OPT_OUT, ()) if policy.honour_opt_out else (_UNIFORM, (_OPT_OUT_IGNORED,))
    return _UNIFORM, (PluginCounter.IGNORED_WISH,)
