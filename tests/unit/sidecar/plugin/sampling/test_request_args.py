from typing import Any

import pytest
from msgspec.structs import replace

from subtext_sidecar.contract.counters import PluginCounter, Stratum
from subtext_sidecar.local.policy import CapturePolicy
from subtext_sidecar.plugin.sampling.request_args import (
    NOTHING_SAID,
    RequestArgs,
    read_request_args,
    request_facts,
)

OPT_IN, OPT_OUT, UNIFORM = Stratum.OPT_IN, Stratum.OPT_OUT, Stratum.UNIFORM

POLICY = CapturePolicy(honour_opt_in=True, honour_opt_out=True, honour_trace=True)
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
R = 0x48EB211C80319C
CAPTURE_ID = "5" * 32


@pytest.mark.parametrize("extra_args", [None, {}, {"kv_transfer_params": {}, "min_tokens_of_another": 3}])
def test_what_is_meant_for_others_is_nothing_said(extra_args: dict[str, Any] | None) -> None:
    assert read_request_args(POLICY, extra_args) == NOTHING_SAID


@pytest.mark.parametrize(("wish", "stratum"), [("on", OPT_IN), ("off", OPT_OUT)])
def test_a_wish_is_a_stratum_of_its_own(wish: str, stratum: Stratum) -> None:
    assert read_request_args(POLICY, {"subtext": wish}) == RequestArgs(stratum, None, ())


@pytest.mark.parametrize(("wish", "field"), [("on", "honour_opt_in"), ("off", "honour_opt_out")])
def test_a_wish_that_is_not_honoured_is_counted(wish: str, field: str) -> None:
    policy = replace(POLICY, **{field: False})
    said = read_request_args(policy, {"subtext": wish})

    assert (said.stratum, said.counters) == (UNIFORM, (field.removeprefix("honour_") + "_not_honoured",))


@pytest.mark.parametrize("wish", ["ON", "", 1, 0.5, ["on"], True])
def test_any_other_wish_is_ignored_and_counted(wish: object) -> None:
    assert read_request_args(POLICY, {"subtext": wish}) == RequestArgs(
        UNIFORM, None, (PluginCounter.IGNORED_WISH,)
    )


def test_a_trace_gives_its_randomness() -> None:
    said = read_request_args(POLICY, {"traceparent": PARENT, "tracestate": "ot=th:0"})

    assert said == RequestArgs(UNIFORM, R, (PluginCounter.REQUESTS_TRACED,))


def test_a_trace_that_is_not_honoured_is_not_read() -> None:
    said = read_request_args(replace(POLICY, honour_trace=False), {"traceparent": PARENT})

    assert said == NOTHING_SAID


def test_a_wish_comes_before_a_trace() -> None:
    assert read_request_args(POLICY, {"traceparent": PARENT, "subtext": "on"}).randomness is None


def test_malformed_traces_are_counted() -> None:
    assert read_request_args(POLICY, {"traceparent": 3}).counters == ("ignored_traceparent",)
    assert read_request_args(POLICY, {"traceparent": PARENT, "tracestate": "ot=rv:1;th:x"}).counters == (
        "ignored_rv",
        "ignored_th",
        "requests_traced",
    )


def test_a_request_carries_every_id_that_its_client_may_have_sent() -> None:
    facts = request_facts(["x_0", "x", "chatcmpl-x_0"], UNIFORM, None, CAPTURE_ID)

    assert (facts.request_id, facts.request_names) == ("x_0", ("x", "chatcmpl-x_0"))


@pytest.mark.parametrize("stratum", [UNIFORM, OPT_IN])
def test_a_request_carries_the_ids_of_its_trace(stratum: Stratum) -> None:
    facts = request_facts(["r"], stratum, {"traceparent": PARENT, "tracestate": 5}, CAPTURE_ID)

    assert (facts.request_id, facts.stratum, facts.capture_id) == ("r", stratum, CAPTURE_ID)
    assert facts.trace_id == "0af7651916cd43dd8448eb211c80319c"
    assert facts.span_id == "b7ad6b7169203331"


@pytest.mark.parametrize(
    "extra_args",
    [
        None,
        {},
        {"subtext": "on"},
        {"traceparent": None},
        {"traceparent": 5},
        {"traceparent": [PARENT]},
        {"traceparent": {"a": PARENT}},
        {"traceparent": ""},
        {"traceparent": "x" * 1_000_000},
        {"traceparent": PARENT.upper()},
        {"traceparent": f"{PARENT}\n"},
        {"traceparent": f"00-{'0' * 32}-b7ad6b7169203331-01"},
        {"traceparent": f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01"},
        {"traceparent": f"ff{PARENT[2:]}"},
    ],
)
def test_a_trace_that_is_none_or_malformed_leaves_no_ids(extra_args: dict[str, Any] | None) -> None:
    facts = request_facts(["r"], UNIFORM, extra_args, CAPTURE_ID)

    assert (facts.trace_id, facts.span_id) == (None, None)
