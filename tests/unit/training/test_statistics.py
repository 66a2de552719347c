"""Fidelity and its uncertainty."""

import numpy as np
import pytest

from workers.training import statistics


def _vectors(n: int = 200) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    rng = np.random.default_rng(0)
    return (rng.standard_normal((n, 8)) + 2.0).astype(np.float32)


def test_a_perfect_rebuild_explains_everything_at_any_scale() -> None:
    vectors = _vectors()

    values = statistics.fve(vectors, 7 * vectors, baseline=statistics.fve_baseline(vectors))

    assert values == pytest.approx(np.ones(len(vectors)), abs=1e-4)


def test_predicting_the_mean_direction_is_no_better_than_zero_by_much() -> None:
    vectors = _vectors()
    units = statistics.to_unit(vectors)
    baseline = statistics.fve_baseline(vectors)

    unnormalised = 1 - np.square(units - units.mean(axis=0)).sum(axis=1) / baseline

    assert unnormalised.mean() == pytest.approx(0.0, abs=1e-3)
    assert baseline == pytest.approx(1 - np.square(units.mean(axis=0)).sum(), abs=1e-5)


def test_the_interval_holds_the_mean_and_is_wider_when_a_document_repeats_itself() -> None:
    values = np.repeat(np.random.default_rng(1).standard_normal(20), 10)

    alone = statistics.bootstrap(values, np.arange(200), rounds=300)
    grouped = statistics.bootstrap(values, np.repeat(np.arange(20), 10), rounds=300)

    assert grouped.low <= grouped.value <= grouped.high
    assert grouped.high - grouped.low > alone.high - alone.low


def test_the_token_baseline_predicts_each_tokens_own_mean() -> None:
    train = np.array([[1, 0], [1, 0], [0, 1]], np.float32)

    predicted = statistics.token_mean_predictions(train, np.array([5, 5, 6]), np.array([5, 7]), prior=0.001)

    assert predicted[0] == pytest.approx([1, 0], abs=1e-2)
    assert predicted[1] == pytest.approx(train.mean(axis=0), abs=1e-3)
