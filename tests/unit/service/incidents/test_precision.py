import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats  # type: ignore[import-untyped]  # no types upstream

from service.incidents.precision import CONFIDENCE, measure


def test_without_a_label_there_is_no_precision() -> None:
    assert measure(0, 0) is None


@given(st.integers(0, 400), st.integers(0, 400))
def test_the_interval_is_scipys_exact_one(confirmed: int, dismissed: int) -> None:
    if not confirmed + dismissed:
        return
    found = measure(confirmed, dismissed)
    exact = stats.binomtest(confirmed, confirmed + dismissed).proportion_ci(CONFIDENCE, method="exact")

    assert found is not None
    assert found.lower == pytest.approx(exact.low, abs=1e-9)
    assert found.upper == pytest.approx(exact.high, abs=1e-9)
    assert 0 <= found.lower <= found.estimate <= found.upper <= 1


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
@pytest.mark.parametrize("labelled", [3, 20, 200])
def test_the_interval_covers_the_true_share_at_least_as_often_as_it_says(
    share: float, labelled: int
) -> None:
    covered = 0.0
    for confirmed in range(labelled + 1):
        found = measure(confirmed, labelled - confirmed)
        assert found is not None
        if found.lower <= share <= found.upper:
            covered += float(stats.binom.pmf(confirmed, labelled, share))

    assert covered >= CONFIDENCE
