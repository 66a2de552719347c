"""Fidelity on unit vectors, its baseline and its uncertainty; pure."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
_PERCENT = (2.5, 97.5)


class Estimate(NamedTuple):
    """A mean with its 95% bootstrap interval over whole documents."""

    value: float
    low: float
    high: float
    n: int

    def as_dict(self) -> dict[str, float | int | list[float]]:
        """Return the JSON form of the card."""
        return {
            "value": round(self.value, 4),
            "ci95": [round(self.low, 4), round(self.high, 4)],
            "n": self.n,
        }


def to_unit(vectors: Vectors) -> Vectors:
    """Rescale every row to norm 1."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-12), np.float32)


def fve_baseline(reference: Vectors) -> float:
    """Mean squared distance of unit vectors from their mean: what predicting the mean leaves over."""
    return float(1.0 - np.square(to_unit(reference).mean(axis=0)).sum())


def fve(vectors: Vectors, rebuilt: Vectors, *, baseline: float) -> NDArray[np.float64]:
    """Fraction of variance explained of every row: 1 is perfect, 0 is no better than the mean."""
    distance = np.square(to_unit(vectors) - to_unit(rebuilt)).sum(axis=-1)
    return np.asarray(1.0 - distance / baseline, np.float64)


def bootstrap(
    values: NDArray[np.float64],
    documents: NDArray[np.int64],
    *,
    rounds: int,
    seed: int = 0,
    statistic: Callable[[NDArray[np.float64]], float] = lambda drawn: float(drawn.mean()),
) -> Estimate:
    """Estimate a statistic of `values`; whole documents are drawn, because rows of one are alike."""
    groups = [values[documents == document] for document in np.unique(documents)]
    rng = np.random.default_rng(seed)
    draws = [
        statistic(np.concatenate([groups[index] for index in rng.integers(len(groups), size=len(groups))]))
        for _ in range(rounds)
    ]
    low, high = np.percentile(draws, _PERCENT)
    return Estimate(statistic(values), float(low), float(high), len(values))


def token_mean_predictions(
    train: Vectors, train_tokens: NDArray[np.int64], tokens: NDArray[np.int64], *, prior: float = 1.0
) -> Vectors:
    """Predict each token's mean training direction, shrunk to the global mean by `prior` rows.

    A decoder that does not beat this has learned which token was read and nothing else.
    """
    units = to_unit(train)
    overall = units.mean(axis=0)
    predictions = np.empty((len(tokens), units.shape[1]), np.float32)
    for token in np.unique(tokens):
        own = units[train_tokens == token]
        predictions[tokens == token] = (own.sum(axis=0) + prior * overall) / (len(own) + prior)
    return predictions
