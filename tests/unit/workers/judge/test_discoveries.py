"""Discoveries keep their rate: on average at most that share of a window's discoveries is false."""

import numpy as np
import pytest
from numpy.typing import NDArray
from online_fdr.p_values import BatchBH

from workers.judge.discoveries import RequestTest, bh_threshold, discover, least_discoveries
from workers.judge.request_anomalies import RequestNull

WINDOWS = 300


def named(p_values: NDArray[np.float64]) -> list[RequestTest]:
    return [RequestTest(str(number), float(value), 999, 10) for number, value in enumerate(p_values)]


def rows_of(shift: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float32]:
    """P-values of ten rows a request that share a factor; a shift makes a request anomalous."""
    from scipy.special import ndtr  # type: ignore[import-untyped]  # no types upstream

    scores = rng.standard_normal((len(shift), 1)) + rng.standard_normal((len(shift), 10)) + shift[:, None]
    return np.asarray(np.maximum(ndtr(-scores / np.sqrt(2)), 1e-6), np.float32)


@pytest.mark.parametrize(("anomalous", "fdr"), [(0, 0.1), (2, 0.1), (20, 0.1), (20, 0.2)])
def test_the_false_discovery_rate_is_at_most_the_nominal_one(anomalous: int, fdr: float) -> None:
    rng = np.random.default_rng(anomalous)
    false_shares, found = [], []
    for _ in range(WINDOWS):
        null = RequestNull(rows_of(np.zeros(1000), rng))
        shift = np.zeros(200)
        shift[:anomalous] = 5.0
        tests = [null.rank(str(number), one.tolist()) for number, one in enumerate(rows_of(shift, rng))]
        captures = [int(one.test.capture_id) for one in discover(tests, fdr=fdr)]
        false = sum(capture >= anomalous for capture in captures)
        false_shares.append(false / max(1, len(captures)))
        found.append((len(captures) - false) / max(1, anomalous))

    error = np.std(false_shares) / np.sqrt(WINDOWS)
    assert np.mean(false_shares) <= fdr + 2 * error
    if anomalous == 20:
        assert np.mean(found) > 0.8


@pytest.mark.parametrize("seed", range(5))
def test_the_discoveries_of_a_window_are_those_of_the_library(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p_values = np.concatenate([rng.uniform(1e-6, 1e-3, 8), rng.uniform(0.001, 1, 92)])
    library = BatchBH(alpha=0.2)

    decisions = library.test_batch(p_values.tolist())

    # Its first batch is tested at a part of the rate; the later parts are for later batches.
    level = library.alpha_s[0]
    assert (p_values <= bh_threshold(p_values, level)).tolist() == decisions
    assert sum(decisions) >= 8


def test_a_discovery_tells_what_it_stands_on() -> None:
    found = discover(named(np.array([0.9, 0.001, 0.07, 0.002, 0.5])), fdr=0.1)

    assert [one.test.capture_id for one in found] == ["1", "3"]
    assert {(one.fdr, one.threshold, one.requests) for one in found} == {(0.1, 0.002, 5)}


def test_nothing_is_found_in_nothing() -> None:
    assert discover([]) == []
    assert discover(named(np.array([0.4, 0.9]))) == []


def test_a_calibration_too_small_for_a_window_is_told() -> None:
    # Among 500 requests k discoveries need p-values of at most 0.1 k / 500.
    assert least_discoveries(500, 1 / 1000) == 5
    p_values = np.full(500, 0.9)
    p_values[:4] = 1 / 1000
    assert discover(named(p_values)) == []
    p_values[4] = 1 / 1000
    assert len(discover(named(p_values))) == 5


@pytest.mark.parametrize(
    ("p_values", "fdr", "said"),
    [
        ([0.1], 0.0, "fdr: is 0.0"),
        ([0.1], 1.0, "fdr: is 1.0"),
        ([0.0], 0.1, "p_values: must be in"),
    ],
)
def test_what_is_no_p_value_and_no_rate_is_refused(p_values: list[float], fdr: float, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        discover(named(np.array(p_values)), fdr=fdr)


def test_a_request_is_tested_once() -> None:
    with pytest.raises(ValueError, match="a request occurs twice"):
        discover([RequestTest("a", 0.5, 99, 1), RequestTest("a", 0.6, 99, 1)])
