"""The bar of the capture: sampling, screening, thinning and losses leave prevalence unbiased."""

import math

import numpy as np
import pytest

from bench.prevalence import Outcome, compare, replay
from bench.prevalence_traffic import Day, fit_reference, simulate

# The bench replays 500. With so many the standard errors are a seventieth of the truth at most, and
# intervals that cover 90% would pass one time in twelve.
REPLICATIONS = 200


@pytest.fixture(scope="module")
def days() -> list[Day]:
    return list(replay(REPLICATIONS, seed=0))


@pytest.fixture(scope="module")
def outcomes(days: list[Day]) -> dict[str, Outcome]:
    return {one.name: one for one in compare(days)}


@pytest.fixture(scope="module")
def day(days: list[Day]) -> Day:
    return days[1]


@pytest.mark.parametrize("name", ["all rows", "baseline"])
def test_the_mean_estimate_is_within_two_standard_errors_of_the_truth(
    outcomes: dict[str, Outcome], name: str
) -> None:
    one = outcomes[name]

    assert abs(one.error) <= 2 * one.standard_error
    assert abs(one.total_error) <= 2 * one.total_standard_error
    # A test with power: a bias of a tenth of the truth would show.
    assert one.standard_error < one.truth / 20


@pytest.mark.parametrize("name", ["all rows", "baseline"])
def test_the_interval_covers_the_truth_as_often_as_it_says(outcomes: dict[str, Outcome], name: str) -> None:
    assert 0.93 <= outcomes[name].coverage <= 0.97


def test_the_simulation_has_what_makes_it_hard(day: Day) -> None:
    probabilities = day.all_rows.probability

    assert probabilities.max() / probabilities.min() > 10
    for counter in (
        "opt_in.requests_sampled",
        "opt_out.requests_seen",
        "uniform.requests_traced",
        "uniform.screened_anomaly",
        "uniform.thinned",
        "uniform.dropped_budget",
    ):
        assert day.counts[counter] > 0
    # Rows that only the screen kept are flagged more often than those of the baseline.
    is_baseline = len(day.baseline_rows.is_flagged)
    assert len(day.all_rows.is_flagged) > is_baseline
    assert day.all_rows.is_flagged.mean() > day.baseline_rows.is_flagged.mean()


def test_ignoring_the_probabilities_would_be_wrong(days: list[Day]) -> None:
    errors = [day.all_rows.is_flagged.mean() - day.prevalence for day in days]

    # One day may come out right by chance; all of them together do not.
    assert abs(np.mean(errors)) > 3 * np.std(errors) / math.sqrt(len(errors))


def test_the_same_seed_gives_the_same_day(day: Day) -> None:
    again = simulate(fit_reference(), seed=1)

    assert again.counts == day.counts
    assert (again.all_rows.probability == day.all_rows.probability).all()
