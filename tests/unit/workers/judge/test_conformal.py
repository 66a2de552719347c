"""P-values hold for the calibration set at hand, with the stated confidence over such sets."""

import numpy as np
import pytest

from workers.judge.conformal import CONFIDENCE, p_values, requests_needed


@pytest.mark.parametrize("n", [20, 200, 1001])
def test_all_p_values_are_super_uniform_given_the_set_in_the_stated_share_of_sets(n: int) -> None:
    rng = np.random.default_rng(n)
    # How often a new request is at least as extreme as each benign one, the most extreme first.
    reached = np.sort(rng.uniform(size=(2000, n)), axis=1)

    holds = (reached <= p_values(n)[:-1]).all(axis=1)

    assert holds.mean() >= CONFIDENCE - 3 * np.sqrt(CONFIDENCE * (1 - CONFIDENCE) / 2000)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 50, 4851])
def test_p_values_rise_with_the_rank_and_are_never_below_the_usual_ones(n: int) -> None:
    found = p_values(n)

    assert len(found) == n + 1
    assert (np.diff(found) >= 0).all()
    assert (found >= (np.arange(n + 1) + 1) / (n + 1) - 1e-12).all()
    assert found[-1] == 1.0


def test_so_many_requests_as_are_needed_suffice_and_fewer_do_not() -> None:
    for p_value in (0.05, 0.005, 0.001):
        needed = requests_needed(p_value)

        assert p_values(needed)[0] <= p_value < p_values(needed - 2)[0]
