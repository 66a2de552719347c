"""How unlike the calibration traffic an activation is, as a conformal p-value.

Pure numpy around scikit-learn's covariance. Vectors are judged by direction only: massive activations
make raw distances a norm detector. Two scores see different things: Hotelling's T2 inside the principal
subspace (an unusual mix of usual directions) and the residual outside of it (an unusual direction).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

COMPONENTS = 64
_HELD_OUT_SHARE = 0.5
_MINIMUM = 40
_MINIMUM_HALF = 10

Matrix = NDArray[np.float64]


class Anomalies(NamedTuple):
    """Scores of a batch."""

    scores: NDArray[np.float64]
    """(n,), 0 to 1: the higher of the two scores' ranks among the calibration scores."""
    p_values: NDArray[np.float64]
    """(n,), conformal: super-uniform for vectors exchangeable with the calibration's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnomalyReference:
    """Benign traffic of one model and layer: a subspace, and the scores of vectors not used to fit it."""

    mean: Matrix
    """Mean of the unit vectors, (d_model,)."""
    components: Matrix
    """Principal directions, (k, d_model)."""
    precision: Matrix
    """Inverse Ledoit-Wolf covariance of the projections, (k, k)."""
    t2_ranked: Matrix
    """Ascending T2 scores of the fitting half, which only rank; (m,)."""
    residual_ranked: Matrix
    """Ascending residual scores of the fitting half; (m,)."""
    calibration_scores: Matrix
    """Ascending fused scores of the held-out half, (n,)."""

    @property
    def calibration_n(self) -> int:
        """Held-out vectors behind a p-value, whose floor is 1 / (calibration_n + 1)."""
        return len(self.calibration_scores)

    def score(self, vectors: NDArray[np.floating[Any]]) -> Anomalies:
        """Judge vectors of shape (n, d_model); raises ValueError on another width or a zero vector."""
        scores = _fused(self, vectors)
        below = np.searchsorted(self.calibration_scores, scores, side="left")
        at_least = self.calibration_n - below
        return Anomalies(scores, np.asarray((1.0 + at_least) / (self.calibration_n + 1.0), np.float64))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays that ``from_arrays`` takes, as float32."""
        return {name: np.asarray(getattr(self, name), np.float32) for name in self.__slots__}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "AnomalyReference":
        """Return the reference; raises ValueError naming an array that is missing or misshapen."""
        missing = [name for name in cls.__slots__ if name not in arrays]
        if missing:
            raise ValueError(f"anomaly reference: {', '.join(missing)}: missing; calibrate again")
        values = {name: np.asarray(arrays[name], np.float64) for name in cls.__slots__}
        k, width = values["components"].shape
        if values["mean"].shape != (width,) or values["precision"].shape != (k, k):
            raise ValueError(
                "anomaly reference: mean, components, precision: shapes disagree; calibrate again"
            )
        return cls(**values)


def fit(
    vectors: NDArray[np.floating[Any]], documents: NDArray[np.integer[Any]] | None = None
) -> AnomalyReference:
    """Fit on one half of the documents and calibrate on the other.

    ``vectors`` (n, d_model) are raw activations of benign traffic; ``documents`` (n,) tells which
    request each came from. Positions of one request resemble each other, so a split by position would
    make calibration scores too low and p-values too small. Raises ValueError with too little data.
    """
    if len(vectors) < _MINIMUM:
        raise ValueError(f"vectors: {len(vectors)} are too few for an anomaly reference, need {_MINIMUM}")
    held_out = _held_out(np.arange(len(vectors)) if documents is None else np.asarray(documents))
    halves = (int(held_out.sum()), int((~held_out).sum()))
    if min(halves) < _MINIMUM_HALF:
        raise ValueError(
            f"documents: their halves hold {halves[0]} and {halves[1]} vectors, need {_MINIMUM_HALF} each;"
            " use more documents"
        )
    fitting = _unit(vectors[~held_out])
    mean = fitting.mean(axis=0)
    # The economy SVD of n x d at these sizes (thousands by hundreds) takes well under a second.
    _, _, directions = np.linalg.svd(fitting - mean, full_matrices=False)
    # At most half of the space: a residual of nothing is rounding noise.
    components = directions[: min(COMPONENTS, len(fitting) // 4, fitting.shape[1] // 2)]
    unranked = AnomalyReference(
        mean=mean,
        components=components,
        precision=_precision((fitting - mean) @ components.T),
        t2_ranked=np.empty(0),
        residual_ranked=np.empty(0),
        calibration_scores=np.empty(0),
    )
    t2, residual = _raw_scores(unranked, vectors[~held_out])
    ranked = _replaced(unranked, t2_ranked=np.sort(t2), residual_ranked=np.sort(residual))
    return _replaced(ranked, calibration_scores=np.sort(_fused(ranked, vectors[held_out])))


def _held_out(documents: NDArray[Any]) -> NDArray[np.bool_]:
    names = np.unique(documents)
    chosen = np.random.default_rng(0).permutation(names)[: max(1, int(len(names) * _HELD_OUT_SHARE))]
    return np.isin(documents, chosen)


def _precision(projections: Matrix) -> Matrix:
    from sklearn.covariance import LedoitWolf

    return np.asarray(LedoitWolf(assume_centered=True).fit(projections).precision_, np.float64)


def _unit(vectors: NDArray[np.floating[Any]]) -> Matrix:
    wide = np.asarray(vectors, np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    if not (norms > 0).all():
        raise ValueError("vectors: a zero vector has no direction")
    return np.asarray(wide / norms, np.float64)


def _raw_scores(reference: AnomalyReference, vectors: NDArray[np.floating[Any]]) -> tuple[Matrix, Matrix]:
    """Return T2 and squared residual of each vector."""
    if vectors.shape[1:] != reference.mean.shape:
        raise ValueError(
            f"vectors: have shape {vectors.shape}, the reference is for {reference.mean.shape}"
        )
    centred = _unit(vectors) - reference.mean
    projected = centred @ reference.components.T
    t2 = np.einsum("nk,kl,nl->n", projected, reference.precision, projected)
    residual = (centred**2).sum(axis=1) - (projected**2).sum(axis=1)
    return t2, residual


def _fused(reference: AnomalyReference, vectors: NDArray[np.floating[Any]]) -> Matrix:
    """Return one score a vector: the higher rank of the two, ties broken by how far beyond the rest.

    Ranks put both scores on one scale; beyond the highest rank a ratio goes on growing, so that two
    extreme vectors still differ.
    """
    t2, residual = _raw_scores(reference, vectors)
    return np.maximum(_rank(t2, reference.t2_ranked), _rank(residual, reference.residual_ranked))


def _rank(values: Matrix, ranked: Matrix) -> Matrix:
    # Interpolated, so that rounding moves a score a little and never across a group of ties.
    share = np.interp(values, ranked, np.arange(1, len(ranked) + 1) / (len(ranked) + 1.0))
    excess = np.maximum(values / max(float(ranked[-1]), 1e-12) - 1.0, 0.0)
    return np.asarray(share + excess / (1.0 + excess) / (len(ranked) + 1.0), np.float64)


def _replaced(reference: AnomalyReference, **changes: Matrix) -> AnomalyReference:
    return AnomalyReference(**{name: getattr(reference, name) for name in reference.__slots__} | changes)
