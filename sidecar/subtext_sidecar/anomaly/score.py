"""Anomaly scores, conformal p-values and probe projections of activations. Pure.

Sidecar and worker share this detector, so one row has one p-value.

Only a vector's direction counts, because norms differ more between tokens than between meanings. The score
is the Mahalanobis distance under probabilistic PCA (Tipping and Bishop 1999): inside the principal subspace
of benign traffic each direction has its own variance, outside of it all share one. So a direction is
unusual by its mix inside the subspace or by its energy outside of it, in one number.

Rows of the chat template, of the client's words and of the model's own differ more from each other than
strange traffic from benign. So a score is scaled by its position class, to 0 at the benign median and 1 at
the benign 99th percentile, and its p-value is its rank among held-out benign rows of that class.

A few tokens carry massive activations: one or two coordinates dominate the vector. Their norm identifies
these rows. They are never anomalous, and neither are rows before the first position that the reference
knows; but probes and the baseline still apply to them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

CLASSES: Final = ("template", "prompt", "answer")
"""Position classes, in the order of everything that has one entry a class."""
TEMPLATE, PROMPT, ANSWER = range(len(CLASSES))

ANOMALY_SCORES: Final = ("anomaly", "anomaly_p_value")
"""Keys of the anomaly score and its p-value in a record's `scores`."""

_MOST: Final = 1e6  # larger scores are as good as this one
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


class Fact(Protocol):
    """What a row's facts and a record's header both tell."""

    @property
    def position(self) -> int:
        """Token position in the request."""

    @property
    def token_id(self) -> int:
        """The token at that position."""

    @property
    def phase(self) -> str:
        """`prefill` or `decode`."""


class Places(NamedTuple):
    """What is known of rows besides their values; arrays are (rows,)."""

    positions: npt.NDArray[np.int64]
    """Token position in the request, from 0."""
    token_ids: npt.NDArray[np.int64]
    is_prompt: npt.NDArray[np.bool_]
    """The row was computed with the prompt; otherwise the model wrote its token."""

    @classmethod
    def of(cls, facts: Sequence[Fact]) -> Self:
        """Return the places of rows with these facts: those of a block, or the headers of records."""
        return cls(
            np.array([one.position for one in facts], np.int64),
            np.array([one.token_id for one in facts], np.int64),
            np.array([one.phase == "prefill" for one in facts], np.bool_),
        )


class Template(NamedTuple):
    """Tokens of the chat template, ascending; empty where nobody knows them."""

    special: tuple[int, ...] = ()
    """Tokens that belong to the template everywhere."""
    words: tuple[int, ...] = ()
    """Tokens that belong to it in prompts, because the model may write them itself."""

    def classify(self, places: Places) -> npt.NDArray[np.int64]:
        """Return the index into CLASSES of every row, (rows,)."""
        return classify(places, self.table())

    def table(self) -> npt.NDArray[np.int64]:
        """Return each token's kind: 2 template everywhere, 1 in prompts only, 0 never; ends in a 0."""
        kinds = np.zeros(max((*self.special, *self.words), default=-1) + 2, np.int64)
        kinds[list(self.words)] = 1
        kinds[list(self.special)] = 2
        return kinds


def classify(places: Places, kinds: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the index into CLASSES of every row, (rows,); ``kinds`` is a template's table."""
    kind = kinds[np.minimum(places.token_ids, len(kinds) - 1)]
    # In this order: a row of a prompt is one class before an answer's, and the template's are the first.
    classes = ANSWER - places.is_prompt
    classes[kind + places.is_prompt >= 2] = TEMPLATE  # noqa: PLR2004  # special, or a word in a prompt
    return np.asarray(classes, np.int64)


NO_TEMPLATE: Final = Template()


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
    noise: float
    """Variance along every direction outside of ``components``."""
    location: Floats
    """Median distance by class, (classes,)."""
    scale: Floats
    """99th percentile of the distance by class, less ``location``; (classes,)."""
    norm_limit: float
    """A row with a larger norm is massive."""
    first_position: int = 0
    """Rows before it are never anomalous: the reference has seen none."""
    template: Template = NO_TEMPLATE
    calibration_scores: tuple[Floats, ...]
    """Anomaly scores of the held-out rows by class, each ascending."""
    request_p_values: Floats
    """P-values of the rows of held-out requests in random order, 0 behind the last; (requests, rows)."""
    probes: tuple[Probe, ...] = ()

    @property
    def d_model(self) -> int:
        """Width of a vector."""
        return len(self.mean)

    @property
    def calibration_n(self) -> int:
        """Number of held-out rows that a p-value ranks a score among, in the class with the fewest."""
        return min(map(len, self.calibration_scores))

    @property
    def least_p_value(self) -> float:
        """The smallest p-value that this reference can give in every class."""
        return 1.0 / (self.calibration_n + 1)


class Measurement(NamedTuple):
    """Scores of a batch of rows."""

    anomaly: Floats
    """(rows,); 0 at the benign median, 1 at the benign 99th percentile."""
    p_values: npt.NDArray[np.float64]
    """(rows,); 1 for a massive row and before the first position."""
    calibration_n: npt.NDArray[np.int64]
    """Number of benign rows that the p-value ranks the score among, (rows,)."""
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
        self._ranking = Ranking(reference.calibration_scores)
        self._kinds = reference.template.table()

    def measure(self, vectors: Floats, norms: npt.NDArray[np.float64], places: Places) -> Measurement:
        """Score finite vectors (rows, d_model), whose norms are (rows,)."""
        reference = self.reference
        projected = project(vectors, norms, self._weights) - self._offsets
        in_subspace, along_mean = projected[:, : self._k], projected[:, self._k]
        energy = 1.0 - 2.0 * along_mean + self._mean_square
        distances = distance(in_subspace, energy, reference.variances, reference.noise)
        classes = classify(places, self._kinds)
        anomaly = (distances - reference.location[classes]) / reference.scale[classes]
        is_massive = norms > reference.norm_limit
        is_known = ~is_massive & (places.positions >= reference.first_position)
        return Measurement(
            anomaly=anomaly,
            p_values=np.where(is_known, self._ranking.p_values(anomaly, classes), 1.0),
            calibration_n=self._ranking.sizes[classes],
            is_massive=is_massive,
            probes=projected[:, self._k + 1 :],
        )

    def score(self, vectors: npt.NDArray[np.floating[Any]], places: Places) -> Measurement:
        """Score finite nonzero vectors; raises ValueError unless they are (rows, d_model)."""
        if vectors.shape[1:] != (self.reference.d_model,):
            raise ValueError(
                f"vectors: have shape {vectors.shape}, the anomaly reference is for rows of"
                f" {self.reference.d_model}"
            )
        norms = np.asarray(np.linalg.norm(vectors.astype(np.float64), axis=1), np.float64)
        return self.measure(np.asarray(vectors, np.float32), norms, places)

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


def distance(in_subspace: Floats, energy: Floats, variances: Floats, noise: float) -> Floats:
    """Return the squared Mahalanobis distance under probabilistic PCA, (rows,).

    ``in_subspace`` (rows, k) are centred projections; ``energy`` (rows,) are squared centred norms.
    """
    squares = in_subspace * in_subspace
    outside = energy - squares.sum(axis=1)
    return np.asarray((squares / variances).sum(axis=1) + outside / np.float32(noise), np.float32)


class Ranking:
    """Conformal p-values of scores among those of their class, with one search for all classes."""

    def __init__(self, scores: Sequence[Floats]) -> None:
        """Take each class's benign scores, ascending."""
        self.sizes = np.array([len(of_class) for of_class in scores], np.int64)
        self._ends = self.sizes.cumsum()
        classes = np.repeat(np.arange(len(scores)), self.sizes)
        self._keys = _keys(np.concatenate(list(scores)), classes)

    def p_values(self, scores: Floats, classes: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return the p-value of every score, (rows,)."""
        at_least = self._ends[classes] - np.searchsorted(self._keys, _keys(scores, classes), side="left")
        return np.asarray((1.0 + at_least) / (1.0 + self.sizes[classes]), np.float64)


def _keys(scores: Floats, classes: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return numbers in the order of the scores within a class, and of the classes."""
    return np.asarray(np.clip(scores, -_MOST, _MOST) + 4.0 * _MOST * classes, np.float64)
