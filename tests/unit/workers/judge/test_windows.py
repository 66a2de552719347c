"""Requests are tested together in windows that are neither too small nor too large for their rate."""

import datetime as dt
import uuid
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from service.store.write.window import Untested
from subtext_sidecar.anomaly.reference import load_reference
from tests.support import ROOT
from workers.judge.discoveries import discover, q_values
from workers.judge.request_anomalies import RequestNull
from workers.judge.windows import Readiness, RequestTester, WindowPlan

NOW = dt.datetime(2026, 11, 28, 12, 0, tzinfo=dt.UTC)
PLAN = WindowPlan(least_requests=20)
BENIGN = np.random.default_rng(0).uniform(1e-3, 1, (2400, 4)).astype(np.float32)
FLOOR = 1 - 0.1 ** (1 / 1200)
"""The smallest p-value among so many benign requests."""


def made(benign: NDArray[np.float32] = BENIGN, plan: WindowPlan = PLAN) -> RequestTester:
    return RequestTester(RequestNull(benign, least_requests=plan.reference_requests), "digest", plan)


def requests(count: int, p_value: float | Sequence[float] = 0.5, minutes_ago: float = 30) -> list[Untested]:
    at = NOW - dt.timedelta(minutes=minutes_ago)
    values = [p_value] * count if isinstance(p_value, float) else p_value
    return [
        Untested(
            uuid.uuid5(uuid.NAMESPACE_OID, str(number)),
            f"r{number}",
            1,
            [3, 4],
            [value, value],
            at + dt.timedelta(seconds=number),
            at + dt.timedelta(seconds=number + 2),
        )
        for number, value in enumerate(values)
    ]


def test_a_window_waits_for_enough_requests_but_not_for_ever() -> None:
    assert made().close([], NOW) == []
    assert made().close(requests(19), NOW) == []
    [full] = made().close(requests(20), NOW)
    [late] = made().close(requests(3, minutes_ago=24 * 60 + 1), NOW)

    assert (len(full.tests), len(late.tests)) == (20, 3)


def test_a_window_is_never_so_large_that_one_request_alone_could_not_be_found() -> None:
    # At a rate of 0.1 the smallest of m p-values must be at most 0.1 / m, so m at most 52.
    windows = made().close(requests(150), NOW)

    assert [len(window.tests) for window in windows] == [50, 50, 50]
    captures = [test.request.capture_id for window in windows for test in window.tests]
    assert len(set(captures)) == 150
    for window in windows:
        starts = [test.request.first_captured_at for test in window.tests]
        assert max(starts) - min(starts) < dt.timedelta(seconds=85)
    [alone] = made().close(requests(52, [1e-3] + [0.9] * 51), NOW)
    assert [test.is_discovery for test in alone.tests].count(True) == 1


def test_a_discovery_tells_its_rank_its_rate_and_the_rows_that_it_stands_on() -> None:
    [window] = made().close(requests(50, [0.9] * 10 + [1e-3] + [0.9] * 39), NOW)

    first = window.tests[0]
    assert (first.request.request_id, first.rank, first.is_discovery) == ("r10", 1, True)
    assert first.p_value == pytest.approx(FLOOR)
    assert first.calibration_n == 2400
    assert first.q_value == pytest.approx(50 * FLOOR)
    assert (first.positions, first.row_p_values) == ([3, 4], [1e-3, 1e-3])
    assert (window.threshold, window.fdr, window.reference_digest) == (first.p_value, 0.1, "digest")
    others = window.tests[1:]
    assert not any(test.is_discovery for test in others)
    assert {test.rank for test in others} == {50}  # they are equal, so none is before another


def test_a_window_without_anomalies_finds_nothing() -> None:
    [window] = made().close(requests(30), NOW)

    assert window.threshold is None
    assert not any(test.is_discovery for test in window.tests)


@pytest.mark.parametrize(
    ("benign", "plan", "readiness"),
    [
        (BENIGN, WindowPlan(), Readiness.READY),
        (BENIGN[:920], WindowPlan(), Readiness.READY),
        (BENIGN[:918], WindowPlan(), Readiness.TOO_FEW_REQUESTS),
        (BENIGN, WindowPlan(fdr=0.01), Readiness.TOO_FEW_REQUESTS),
        (BENIGN[:0], WindowPlan(), Readiness.TOO_FEW_REQUESTS),
    ],
)
def test_a_reference_that_is_too_small_for_the_rate_says_so_and_finds_nothing(
    benign: NDArray[np.float32], plan: WindowPlan, readiness: Readiness
) -> None:
    strange = requests(plan.least_requests, 1e-3)

    tester = made(benign, plan)

    assert tester.readiness == readiness
    assert bool(tester.close(strange, NOW)) == (readiness == Readiness.READY)


def test_the_shipped_reference_can_tell_requests_apart_at_the_default_rate() -> None:
    reference = load_reference(ROOT / "deploy/decoders/smollm2-135m-l23/anomaly.safetensors")

    shipped = made(reference.request_p_values, WindowPlan())

    assert (shipped.readiness, shipped.most_requests) == (Readiness.READY, 105)


def test_a_number_of_rows_that_too_few_benign_requests_have_is_not_used() -> None:
    benign = BENIGN.copy()
    benign[500:, 1:] = 0.0

    [window] = made(benign, WindowPlan()).close(requests(20), NOW)

    assert {(len(test.positions), test.calibration_n) for test in window.tests} == {(1, 2400)}


@pytest.mark.parametrize("seed", range(5))
def test_a_request_is_a_discovery_where_its_q_value_is_at_most_the_rate(seed: int) -> None:
    rng = np.random.default_rng(seed)
    strange = rng.uniform(1e-3, 3e-3, 8)
    values = np.concatenate([strange, rng.uniform(1e-3, 1, 42)]).tolist()

    [window] = made().close(requests(50, values), NOW)

    assert [test.is_discovery for test in window.tests] == [test.q_value <= 0.1 for test in window.tests]
    found = sum(test.is_discovery for test in window.tests)
    null = RequestNull(BENIGN)
    tests = [null.rank(str(number), [value, value]) for number, value in enumerate(values)]
    assert len(discover(tests, fdr=0.1)) == found > 0


def test_q_values_are_those_of_the_library() -> None:
    from scipy.stats import false_discovery_control  # type: ignore[import-untyped]  # no types upstream

    p_values = np.random.default_rng(3).uniform(1e-4, 1, 200)

    assert q_values(p_values) == pytest.approx(false_discovery_control(p_values, method="bh"))
    assert len(q_values(np.array([]))) == 0
