"""Anomaly scores, conformal p-values and probe projections of activations. Pure.

Sidecar and worker share this detector, so one row has one p-value.

Only a vector's direction counts, because norms differ more between tokens than between meanings. A
direction is unusual in two ways: by its Mahalanobis distance inside the principal subspace of benign
traffic, and by its energy outside that subspace. Both raw scores are scaled to 0 at the benign median and
1 at the benign 99th percentile. The anomaly score is the larger one. The p-value is the rank of that score
among held-out benign rows.

A few tokens carry massive activations: one or two coordinates dominate the vector. Their norm identifies
these rows. They are never anomalous, but probes and the baseline still apply to them.
"""

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

ANOMALY_SCORES: Final = ("anomaly", "anomaly_p_value")
"""Keys of the anomaly score and its p-value in a record's `scores`."""

_HUGE: Final = 1e15  # above this norm a float32 product could overflow


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A watched direction; unit vector u matches when (u - mean) . direction > ``threshold``."""

    name: str
    direction: Floats
    """Unit vector, (d_model,)."""
    mean: Floats
    """(d_model,)."""
    threshold: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The statistics of benign traffic that the detector needs, for one model and layer."""

    model: str
    """The served name, as in the records."""
    layer: int
    mean: Floats
    """Mean of the unit vectors, (d_model,)."""
    components: Floats
    """Orthonormal principal directions, (k, d_model)."""
    variances: Floats
    """Variances of the projections onto ``components``, (k,)."""
    location: Floats
    """Medians of squared Mahalanobis distance and residual energy, (2,)."""
    scale: Floats
    """99th percentiles less ``location``, (2,)."""
    norm_limit: float
    """A row with a larger norm is massive."""
    calibration_scores: Floats
    """Anomaly scores of the held-out rows, ascending, (n,)."""
    probes: tuple[Probe, ...] = ()

    @property
    def d_model(self) -> int:
        """Width of a vector."""
        return len(self.mean)

    @property
    def calibration_n(self) -> int:
        """Number of held-out rows that a p-value ranks a score among."""
        return len(self.calibration_scores)

    @property
    def least_p_value(self) -> float:
        """The smallest p-value that this reference can give."""
        return 1.0 / (self.calibration_n + 1)


class Measurement(NamedTuple):
    """Scores of a batch of rows."""

    anomaly: Floats
    """(rows,); 0 at the benign median, 1 at the benign 99th percentile."""
    p_values: npt.NDArray[np.float64]
    """(rows,); 1 for a massive row."""
    is_massive: npt.NDArray[np.bool_]
    """(rows,)."""
    probes: Floats
    """Projections, (rows, probes)."""


class Detector:
    """Scores whole blocks against a reference, with one matrix product per block."""

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
        """Score finite vectors (rows, d_model), whose norms are (rows,)."""
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
        """Score finite nonzero vectors; raises ValueError unless they are (rows, d_model)."""
        if vectors.shape[1:] != (self.reference.d_model,):
            raise ValueError(
                f"vectors: have shape {vectors.shape}, the anomaly reference is for rows of"
                f" {self.reference.d_model}"
            )
        norms = np.asarray(np.linalg.norm(vectors.astype(np.float64), axis=1), np.float64)
        return self.measure(np.asarray(vectors, np.float32), norms)

    def probes_found(self, measured: Measurement) -> npt.NDArray[np.bool_]:
        """Return which rows exceed which probe's threshold, (rows, probes)."""
        return measured.probes > self._thresholds


def project(vectors: Floats, norms: npt.NDArray[np.float64], weights: Floats) -> Floats:
    """Project unit vectors onto the rows of ``weights``, (rows, len(weights)); zero vectors give zeros."""
    with np.errstate(divide="ignore"):
        inverse = np.where(norms > 0.0, 1.0 / norms, 0.0).astype(np.float32)[:, None]
    if norms.max(initial=0.0) > _HUGE:
        return np.asarray((vectors * inverse) @ weights.T, np.float32)
    # Scaling the product avoids another pass over the vectors.
    return np.asarray((vectors @ weights.T) * inverse, np.float32)


def raw_scores(in_subspace: Floats, energy: Floats, variances: Floats) -> Floats:
    """Return squared Mahalanobis distance and residual energy, (rows, 2).

    ``in_subspace`` (rows, k) are centred projections; ``energy`` (rows,) are squared centred norms.
    """
    squares = in_subspace * in_subspace
    return np.stack([(squares / variances).sum(axis=1), energy - squares.sum(axis=1)], axis=1)


def fuse(raw: Floats, location: Floats, scale: Floats) -> Floats:
    """Return the larger of both scaled raw scores, (rows,)."""
    return np.asarray(((raw - location) / scale).max(axis=1), np.float32)
