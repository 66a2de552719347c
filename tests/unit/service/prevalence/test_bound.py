import math
from typing import Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.prevalence.bound import anytime_lower, log_wealth
from service.prevalence.estimate import SampledRequests

RATES: Final = np.array([1.0, 0.5, 0.1, 0.02])
LEAST_EVIDENCE: Final = math.log(20.0)  # against a share that the bound at 95% excludes


def requests_of(
    flagged: NDArray[np.int64], unflagged: NDArray[np.int64], rates: NDArray[np.float64] = RATES
) -> SampledRequests:
    """``flagged`` and ``unflagged`` count judged requests by rate."""
    return SampledRequests(
        count=np.concatenate([flagged, unflagged]),
        probability=np.tile(rates, 2),
        is_flagged=np.repeat([True, False], len(rates)),
        retained=np.ones(2 * len(rates)),
    )


def judged(count: int, flagged: int, rate: float = 1.0) -> SampledRequests:
    return requests_of(np.array([flagged]), np.array([count - flagged]), np.array([rate]))


def test_nothing_is_claimed_without_a_flag() -> None:
    assert anytime_lower(judged(0, 0)) == 0.0
    assert anytime_lower(judged(100_000, 0)) == 0.0


def test_the_bound_closes_in_on_the_share() -> None:
    bounds = [anytime_lower(judged(count, count // 20)) for count in (100, 1_000, 10_000, 100_000)]

    assert bounds == sorted(bounds)
    assert 0.006 < bounds[0] < 0.03
    assert 0.045 < bounds[-1] < 0.05


def test_of_requests_that_are_all_flagged_the_bound_stays_below_one() -> None:
    assert 0.9 < anytime_lower(judged(200, 200)) < 1.0


def test_more_confidence_gives_a_lower_bound() -> None:
    sample = judged(1_000, 50)

    assert anytime_lower(sample, 0.99) < anytime_lower(sample, 0.95) < anytime_lower(sample, 0.5)


def test_the_bound_is_where_the_evidence_is_just_enough() -> None:
    sample = requests_of(np.array([4, 3, 2, 1]), np.array([400, 300, 200, 100]))

    assert log_wealth(sample, anytime_lower(sample)) == pytest.approx(LEAST_EVIDENCE, abs=1e-6)


@given(
    groups=st.lists(
        st.tuples(st.integers(0, 50), st.floats(1e-4, 1.0), st.booleans(), st.floats(0.05, 1.0)),
        min_size=1,
        max_size=8,
    )
)
def test_how_requests_are_grouped_and_ordered_does_not_matter(
    groups: list[tuple[int, float, bool, float]],
) -> None:
    def bound(listed: list[tuple[int, float, bool, float]]) -> float:
        count, probability, is_flagged, retained = zip(*listed, strict=True)
        return anytime_lower(
            SampledRequests(
                count=np.array(count),
                probability=np.array(probability),
                is_flagged=np.array(is_flagged),
                retained=np.array(retained),
            )
        )

    one_by_one = [(1, *group[1:]) for group in reversed(groups) for _ in range(group[0])]

    assert 0.0 <= bound(groups) < 1.0
    assert bound([*one_by_one, (0, 1.0, True, 1.0)]) == pytest.approx(bound(groups), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("share", [0.002, 0.03, 0.4])
def test_who_looks_after_every_minute_is_misled_in_at_most_one_of_twenty_days(share: float) -> None:
    """The rates change with the day and with demand, as budgets make them, and never with an outcome."""
    random = np.random.default_rng(20261128)
    days, minutes = 300, 240
    misled = excludes_a_quarter = 0
    for _ in range(days):
        in_force = random.choice(len(RATES), size=minutes, p=[0.1, 0.2, 0.5, 0.2])
        judged_in = random.binomial(random.poisson(40, minutes), RATES[in_force])
        flagged_in = random.binomial(judged_in, share)
        flagged, unflagged = np.zeros((2, minutes, len(RATES)), np.int64)
        flagged[np.arange(minutes), in_force] = flagged_in
        unflagged[np.arange(minutes), in_force] = judged_in - flagged_in
        looks = zip(flagged.cumsum(axis=0), unflagged.cumsum(axis=0), strict=True)
        # After a minute without a flag the wealth is lower than before: nothing new can mislead.
        samples = [requests_of(*look) for look, new in zip(looks, flagged_in, strict=True) if new]
        misled += any(log_wealth(sample, share) > LEAST_EVIDENCE for sample in samples)
        excludes_a_quarter += bool(samples) and log_wealth(samples[-1], share / 4) > LEAST_EVIDENCE

    assert misled / days <= 0.05
    if share >= 0.03:
        assert excludes_a_quarter / days > 0.95, "the bound must not be valid for being empty"
