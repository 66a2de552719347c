import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.nla import fidelity

AXES = np.array([[2, 0], [0, 3]], np.float32)


def test_figures_of_axes_match_those_worked_out_by_hand() -> None:
    # mean of (1,0) and (0,1) is (.5,.5), of squared length .5: baseline .5
    rebuilt = np.array([[5, 0], [1, 1]], np.float32)

    baseline = fidelity.fve_baseline(AXES)

    assert baseline == pytest.approx(0.5)
    assert fidelity.cosine(AXES, rebuilt) == pytest.approx([1, 0.5**0.5])
    assert fidelity.unit_mse(AXES, rebuilt) == pytest.approx([0, 2 - 2**0.5])
    assert fidelity.fve(AXES, rebuilt, baseline=baseline) == pytest.approx([1, 1 - (2 - 2**0.5) / 0.5])


def test_predicting_the_mean_without_rescaling_would_score_zero() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((200, 16)).astype(np.float32) + 1
    errors = np.square(fidelity.to_unit(vectors) - fidelity.mean_direction(vectors)).sum(axis=1)

    assert 1 - errors.mean() / fidelity.fve_baseline(vectors) == pytest.approx(0, abs=1e-6)


def test_vectors_that_all_agree_have_no_baseline() -> None:
    with pytest.raises(ValueError, match="at least 2 with different directions"):
        fidelity.fve_baseline(np.ones((3, 4), np.float32))


@given(st.integers(0, 2**32 - 1))
def test_fve_ignores_length_and_never_exceeds_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors, rebuilt = rng.standard_normal((2, 5, 8)).astype(np.float32)
    lengths = rng.uniform(0.1, 1e4, (5, 1)).astype(np.float32)

    fves = fidelity.fve(vectors, rebuilt, baseline=0.5)

    assert (fves <= 1).all()
    assert fidelity.fve(vectors * lengths, rebuilt, baseline=0.5) == pytest.approx(fves, abs=1e-5)
    assert fidelity.unit_mse(vectors, rebuilt) == pytest.approx(
        2 * (1 - fidelity.cosine(vectors, rebuilt)), abs=1e-9
    )


@given(st.lists(st.integers(0, 6), min_size=2, max_size=60))
def test_shuffled_pairs_use_every_row_once_and_cross_documents_where_possible(documents: list[int]) -> None:
    labels = np.array(documents, np.int64)
    most = int(np.unique(labels, return_counts=True)[1].max())

    partners = fidelity.other_documents(labels)

    assert sorted(partners) == list(range(len(labels)))
    if most * 2 <= len(labels):
        assert (labels[partners] != labels).all()


def test_a_share_of_none_still_has_an_upper_bound() -> None:
    interval = fidelity.share_interval(np.zeros(100, bool))

    # Wilson, 0 of 100: 3.7%
    assert (interval.value, interval.low, interval.n) == (0, 0, 100)
    assert interval.high == pytest.approx(0.037, abs=5e-4)


def test_an_interval_over_few_documents_is_wider_than_over_many() -> None:
    values = np.repeat(np.array([0.0, 1.0, 0.5, 0.2]), 25)
    few = fidelity.mean_interval(values, np.repeat(np.arange(4), 25))
    many = fidelity.mean_interval(values, np.arange(100))

    assert few.value == many.value == pytest.approx(0.425)
    assert few.high - few.low > 2 * (many.high - many.low)


def test_rows_at_the_same_place_of_two_documents_meet_by_chance_only() -> None:
    places = np.tile(np.arange(10), 200)

    partners = fidelity.other_documents(np.repeat(np.arange(200), 10))

    assert 0.05 < (places == places[partners]).mean() < 0.15
