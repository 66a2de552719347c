"""How unlike benign traffic an activation is, and how far it points in probe directions. Pure.

The sidecar measures every received row with it and the worker every reading: one detector, one p-value.

Vectors are judged by direction only, because norms differ more between tokens than between meanings.
Two things are unusual about a direction: an unusual mix of usual components (Mahalanobis distance
inside the principal subspace) and energy outside of it. Each is put on the scale of benign traffic,
0 at its median and 1 at its 99th percentile; the anomaly score is the higher of the two, and its
p-value is conformal: the rank among the scores of benign rows that the reference was not fitted on.

A few tokens carry massive activations, which turn their direction into that of one or two
coordinates. They are told by their norm and never called anomalous; probes and the baseline still
see them.
"""

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

ANOMALY_SCORES: Final = ("anomaly", "anomaly_p_value")
"""By what names a record's `scores` hold the score and its p-value."""

_HUGE: Final = 1e15  # norms beyond which a product of float32 could overflow


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A direction to watch for: (u - mean) . direction above ``threshold``, u being the unit vector."""

    name: str
    direction: Floats
    """Unit length, (d_model,)."""
    mean: Floats
    """(d_model,)."""
    threshold: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Benign traffic of one model and layer."""

    model: str
    """Served name, as on the records."""
    layer: int
    mean: Floats
    """Mean of the unit vectors, (d_model,)."""
    components: Floats
    """Orthonormal principal directions, (k, d_model)."""
    variances: Floats
    """Of the projections on them, (k,)."""
    location: Floats
    """Medians of Mahalanobis distance and residual energy, (2,)."""
    scale: Floats
    """From there to their 99th percentiles, (2,)."""
    norm_limit: float
    """Rows of a larger norm are massive."""
    calibration_scores: Floats
    """Ascending scores of the held-out rows, (n,)."""
    probes: tuple[Probe, ...] = ()

    @property
    def d_model(self) -> int:
        """Width of a vector."""
        return len(self.mean)

    @property
    def calibration_n(self) -> int:
        """Rows behind a p-value."""
        return len(self.calibration_scores)

    @property
    def least_p_value(self) -> float:
        """The smallest p-value that can come out."""
        return 1.0 / (self.calibration_n + 1)


class Measurement(NamedTuple):
    """What was measured on some rows."""

    anomaly: Floats
    """Scores, (rows,)."""
    p_values: npt.NDArray[np.float64]
    """(rows,); 1 for a massive row."""
    is_massive: npt.NDArray[np.bool_]
    """(rows,)."""
    probes: Floats
    """Projections, (rows, probes)."""


class Detector:
    """A reference made ready for scoring whole blocks with one matrix product."""

    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        self._thresholds = np.array([probe.threshold for probe in reference.probes], np.float32)
        self._k = len(reference.components)
        directions = [probe.direction for probe in reference.probes]
        self._weights = np.ascontiguousarray(
            np.vstack([reference.components, reference.mean[None], *directions]), np.float32
        )
        offsets = [reference.components @ reference.mean, np.zeros(1)]
        offsets += [np.array([probe.direction @ probe.mean]) for probe in reference.probes]
        self._offsets = np.concatenate(offsets).astype(np.float32)
        self._mean_square = np.float32(reference.mean @ reference.mean)
        self._scores_ranked = reference.calibration_scores.astype(np.float32)

    def measure(self, vectors: Floats, norms: npt.NDArray[np.float64]) -> Measurement:
        """Score finite vectors of shape (rows, d_model) with their norms."""
        reference = self.reference
        projected = project(vectors, norms, self._weights) - self._offsets
        in_subspace, along_mean = projected[:, : self._k], projected[:, self._k]
        energy = 1.0 - 2.0 * along_mean + self._mean_square
        anomaly = fuse(
            raw_scores(in_subspace, energy, reference.variances),
            reference.location,
            reference.scale,
        )
        below = np.searchsorted(self._scores_ranked, anomaly, side="left")
        is_massive = norms > reference.norm_limit
        p_values = (1.0 + (reference.calibration_n - below)) / (1.0 + reference.calibration_n)
        return Measurement(
            anomaly=anomaly,
            p_values=np.where(is_massive, 1.0, p_values),
            is_massive=is_massive,
            probes=projected[:, self._k + 1 :],
        )

    def score(self, vectors: npt.NDArray[np.floating[Any]]) -> Measurement:
        """Score finite vectors, none of them zero; raises ValueError unless they are (rows, d_model)."""
        if vectors.shape[1:] != (self.reference.d_model,):
            raise ValueError(
                f"vectors: have shape {vectors.shape}, the anomaly reference is for rows of"
                f" {self.reference.d_model}"
            )
        norms = np.asarray(np.linalg.norm(vectors.astype(np.float64), axis=1), np.float64)
        return self.measure(np.asarray(vectors, np.float32), norms)

    def probes_found(self, measured: Measurement) -> npt.NDArray[np.bool_]:
        """Tell which rows each probe finds, (rows, probes)."""
        return measured.probes > self._thresholds


def project(vectors: Floats, norms: npt.NDArray[np.float64], weights: Floats) -> Floats:
    """Return unit vectors times weights^T, (rows, len(weights)); a zero vector gives zeros."""
    with np.errstate(divide="ignore"):
        inverse = np.where(norms > 0.0, 1.0 / norms, 0.0).astype(np.float32)[:, None]
    if norms.max(initial=0.0) > _HUGE:
        return np.asarray((vectors * inverse) @ weights.T, np.float32)
    return np.asarray((vectors @ weights.T) * inverse, np.float32)  # a pass over the vectors less


def raw_scores(in_subspace: Floats, energy: Floats, variances: Floats) -> Floats:
    """Return squared Mahalanobis distance and residual energy, (rows, 2), from centred projections."""
    squares = in_subspace * in_subspace
    return np.stack([(squares / variances).sum(axis=1), energy - squares.sum(axis=1)], axis=1)


def fuse(raw: Floats, location: Floats, scale: Floats) -> Floats:
    """Return one anomaly score a row: the higher of both."""
    return np.asarray(((raw - location) / scale).max(axis=1), np.float32)
