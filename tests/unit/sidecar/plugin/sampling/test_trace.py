import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subtext_sidecar.contract.counters import TraceFault
from subtext_sidecar.plugin.sampling import rule as sampling
from subtext_sidecar.plugin.sampling.trace import Trace, read_trace

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01"
R = 0x48EB211C80319C  # the last 14 digits of the trace id


def test_the_low_56_bits_of_the_trace_id_are_the_randomness() -> None:
    assert read_trace(PARENT, None) == Trace(R, None, ())


def test_an_explicit_value_stands_in_for_the_trace_id() -> None:
    assert read_trace(PARENT, "ot=rv:6e6d1a75832a2f") == Trace(0x6E6D1A75832A2F, None, ())


@pytest.mark.parametrize(
    ("entry", "threshold"),
    [
        ("th:0", 0),
        ("th:8", 0x80000000000000),
        ("th:c", 0xC0000000000000),
        ("th:fd70a4", 0xFD70A400000000),
        ("th:00000000000001", 1),
    ],
)
def test_a_threshold_is_filled_up_with_zeros(entry: str, threshold: int) -> None:
    unsampled = f"{PARENT[:-2]}00"

    assert read_trace(unsampled, f"ot={entry}").upstream_threshold == threshold


def test_our_entry_is_found_among_those_of_others() -> None:
    state = "rojo=00f067aa0ba902b7 , ot=p:8;rv:00000000000000;th:0;k1:13,congo=t61rcWkgMzE"

    assert read_trace(PARENT, state) == Trace(0, 0, ())


@pytest.mark.parametrize("flags", ["00", "01", "02", "03", "ff"])
def test_flags_do_not_change_the_randomness(flags: str) -> None:
    assert read_trace(f"{PARENT[:-2]}{flags}", None).randomness == R


def test_a_later_version_may_have_more_fields() -> None:
    assert read_trace(f"01{PARENT[2:]}-what-the-future-will-be-like", None).randomness == R


@pytest.mark.parametrize(
    "parent",
    [
        "",
        5,
        ["a"],
        PARENT.upper(),
        PARENT[:-1],
        PARENT + "-00",
        PARENT + "\n",
        "ff" + PARENT[2:],
        "00-" + "0" * 32 + PARENT[35:],
        f"00-{TRACE_ID}-{'0' * 16}-01",
    ],
)
def test_a_malformed_parent_is_ignored_and_told(parent: object) -> None:
    assert read_trace(parent, None) == Trace(None, None, (TraceFault.TRACEPARENT,))


def test_a_state_without_its_parent_means_nothing() -> None:
    assert read_trace(None, "ot=rv:6e6d1a75832a2f") == Trace(None, None, (TraceFault.TRACESTATE,))
    assert read_trace("x", "ot=rv:6e6d1a75832a2f").faults == ("traceparent", "tracestate")
    assert read_trace(None, None) == Trace(None, None, ())


@pytest.mark.parametrize(
    "state",
    [
        7,
        "ot=rv",
        "ot=",
        "ot=;",
        "ot=th:0;th:8",
        "ot=th:0,ot=th:8",
        "ot=th:é",
        f"ot=k:{'1' * 300}",
        "a" * 20_000,
    ],
)
def test_a_malformed_state_leaves_the_trace_id(state: object) -> None:
    trace = read_trace(PARENT, state)

    assert trace.randomness == R
    assert trace.upstream_threshold is None
    assert trace.faults == ("tracestate",)


@pytest.mark.parametrize(
    ("state", "fault"),
    [
        ("ot=rv:6e6d1a75832a2", TraceFault.RV),
        ("ot=rv:6e6d1a75832a2f0", TraceFault.RV),
        ("ot=rv:6E6D1A75832A2F", TraceFault.RV),
        ("ot=rv:6e6d1a75832a2g", TraceFault.RV),
        ("ot=rv:", TraceFault.RV),
        ("ot=th:", TraceFault.TH),
        ("ot=th:0x8", TraceFault.TH),
        ("ot=th:800000000000000", TraceFault.TH),
    ],
)
def test_a_malformed_value_is_ignored_alone(state: str, fault: TraceFault) -> None:
    assert read_trace(PARENT, state) == Trace(R, None, (fault,))


def test_an_upstream_that_contradicts_itself_is_told_and_changes_nothing() -> None:
    # Sampled, though its randomness is below its threshold.
    assert read_trace(PARENT, "ot=th:8") == Trace(R, 0x80000000000000, (TraceFault.INCONSISTENT_TH,))


@given(
    rv=st.integers(0, sampling.RANDOMNESS_END - 1), upstream=st.floats(0.0, 1.0), ours=st.floats(0.0, 1.0)
)
def test_the_sampler_with_the_lower_rate_takes_a_part_of_what_the_other_takes(
    rv: int, upstream: float, ours: float
) -> None:
    randomness = read_trace(PARENT, f"ot=rv:{rv:014x}").randomness
    assert randomness is not None
    by_upstream = rv >= sampling.threshold(upstream)
    by_us = randomness >= sampling.threshold(ours)

    assert by_us <= by_upstream if ours <= upstream else by_upstream <= by_us


@given(
    parent=st.one_of(st.none(), st.text(), st.integers(), st.text(string.hexdigits + "-", max_size=60)),
    state=st.one_of(st.none(), st.text(), st.floats(), st.text("othrv=:;,0f", max_size=60)),
)
def test_garbage_is_read_without_an_error(parent: object, state: object) -> None:
    trace = read_trace(parent, state)

    assert trace.randomness is None or 0 <= trace.randomness < sampling.RANDOMNESS_END
