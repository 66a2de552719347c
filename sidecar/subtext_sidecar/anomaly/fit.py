"""Fit a detector's reference on activations of benign traffic. Pure numpy.

Half of the requests fit the subspace; the other half yields the calibration scores behind the p-values of
rows, and the p-values of its own rows, behind those of requests. The split is by request because positions
of one request are correlated: a split by row would make p-values too small. So are the beams, completions
and halves that one client's request becomes, each of which is a capture: they lie on one side together.
"""

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from subtext_sidecar.anomaly.reference import AnomalyError
from subtext_sidecar.anomaly.score import (
    ANSWER,
    CLASSES,
    NO_TEMPLATE,
    PROMPT,
    TEMPLATE,
    Floats,
    Places,
    Probe,
    Ranking,
    Reference,
    Template,
    distance,
    project,
)

COMPONENTS: Final = 64
"""Chosen by measurement, see docs/decisions/0019-anomalies.md."""
P_VALUE: Final = 0.01
# Held-out rows beyond a threshold: with ten of them the relative standard error of their share is a third.
ROWS_BEYOND: Final = 10
NORM_FACTOR: Final = 8.0  # times the median norm; massive activations are 10 to 1000 times larger
HIGH: Final = 0.99  # quantile of the distance at which the score is 1
REQUEST_ROWS: Final = 16
"""Largest number of rows that a request is judged by."""
_SAME: Final = 1e-6  # distance at which float32 cannot distinguish two unit vectors
_LEAST_DOCUMENTS: Final = 20
_DEVIATIONS: Final = 4.0  # rows of a request resemble each other, so there are fewer than they seem
_LEAST_ROWS: Final = 200  # of a class, for two of them to lie beyond its 99th percentile

Matrix = npt.NDArray[np.float64]


class Direction(NamedTuple):
    """A probe to fit: ``mean`` defaults to the reference's, ``threshold`` to the one for the p-value."""

    name: str
    direction: npt.NDArray[np.floating[Any]]
    mean: npt.NDArray[np.floating[Any]] | None
    threshold: float | None


class ReferenceFit(NamedTuple):
    """A reference, with the number of rows that it was fitted on and left out."""

    reference: Reference
    fit_rows: int
    massive_rows: int  # left out of fit and calibration
    pooled_classes: tuple[str, ...]
    """Position classes with too few held-out rows: the rows of all classes stand for theirs."""


def rows_needed(p_value: float) -> int:
    """Return how many held-out rows a threshold at this p-value needs."""
    return math.ceil(ROWS_BEYOND / p_value)


def fit(
    vectors: npt.NDArray[np.floating[Any]],
    documents: npt.NDArray[np.integer[Any]],
    *,
    model: str,
    layer: int,
    p_value: float = P_VALUE,
    components: int = COMPONENTS,
    directions: Sequence[Direction] = (),
    places: Places | None = None,
    template: Template = NO_TEMPLATE,
    captures: npt.NDArray[np.integer[Any]] | None = None,
) -> ReferenceFit:
    """Fit on raw activations (n, d_model); ``documents`` (n,) numbers each row's request.

    ``captures`` (n,) numbers what is judged as one request, where a client's request became several.

    Without ``places`` all position classes are judged by the rows of all of them. Neither is the template
    a class where its rows would be ranked more leniently than others of the prompt, because clients can end
    theirs with one of its tokens.

    Raises AnomalyError for non-finite or zero rows, for rows without spread, and for too few rows or
    requests at this p-value.
    """
    if not 0.0 < p_value < 1.0:
        raise AnomalyError(f"p_value: is {p_value}, must be between 0 and 1")
    wide = np.asarray(vectors, np.float64)
    norms = np.linalg.norm(wide, axis=1)
    if not (np.isfinite(norms).all() and (norms > 0).all()):
        raise AnomalyError("vectors must be finite and not zero")
    norm_limit = NORM_FACTOR * float(np.median(norms))
    usual = norms <= norm_limit
    units, of_client = (wide / norms[:, None])[usual], np.asarray(documents)[usual]
    judged = of_client if captures is None else np.asarray(captures)[usual]
    classes = _classes(places, template, len(wide))[usual]
    held_out = _held_out(of_client)
    _check_size(int(held_out.sum()), len(np.unique(of_client)), p_value)
    fitting = units[~held_out]
    subspace = _subspace(fitting, components)
    scaling = _scaling(_distances(fitting, subspace), classes[~held_out])
    if not (scaling.scale > 0).all():
        raise AnomalyError("vectors have no spread: they must differ from each other")
    of_held_out = classes[held_out]
    scores = (_distances(units[held_out], subspace) - scaling.location[of_held_out]) / scaling.scale[
        of_held_out
    ]
    is_pooled = np.bincount(of_held_out, minlength=len(CLASSES)) < rows_needed(p_value)
    ranked = tuple(
        np.sort(scores if is_pooled[number] else scores[of_held_out == number])
        for number in range(len(CLASSES))
    )
    if template != NO_TEMPLATE and _is_lenient(TEMPLATE, PROMPT, ranked, scaling):
        return fit(
            vectors,
            documents,
            model=model,
            layer=layer,
            p_value=p_value,
            components=components,
            directions=directions,
            places=places,
            captures=captures,
        )
    reference = Reference(
        model=model,
        layer=layer,
        mean=subspace.mean,
        components=subspace.components,
        variances=subspace.variances,
        noise=subspace.noise,
        location=scaling.location,
        scale=scaling.scale,
        norm_limit=norm_limit,
        first_position=0 if places is None else int(places.positions[usual].min()),
        template=template,
        calibration_scores=ranked,
        request_p_values=_request_p_values(scores, of_held_out, judged[held_out], ranked),
        probes=tuple(_probe(one, subspace.mean, units[held_out], p_value) for one in directions),
    )
    return ReferenceFit(
        reference,
        fit_rows=len(fitting),
        massive_rows=int((~usual).sum()),
        pooled_classes=tuple(name for name, pooled in zip(CLASSES, is_pooled, strict=True) if pooled),
    )


class _Scaling(NamedTuple):
    location: Floats
    scale: Floats


def _classes(places: Places | None, template: Template, rows: int) -> npt.NDArray[np.int64]:
    """Return the rows' classes, (rows,); rows of unknown places are taken for one class."""
    return np.full(rows, ANSWER) if places is None else template.classify(places)


def _scaling(distances: Floats, classes: npt.NDArray[np.int64]) -> _Scaling:
    quantiles = []
    for number in range(len(CLASSES)):
        of_class = distances[classes == number]
        few = len(of_class) < _LEAST_ROWS
        quantiles.append(np.quantile(distances if few else of_class, (0.5, HIGH)))
    location, high = np.array(quantiles, np.float32).T
    return _Scaling(location, high - location)


def _request_p_values(
    scores: Floats,
    classes: npt.NDArray[np.int64],
    captures: npt.NDArray[np.integer[Any]],
    ranked: tuple[Floats, ...],
) -> Floats:
    """Return up to REQUEST_ROWS p-values of every request in random order, (requests, REQUEST_ROWS).

    A held-out row ranks among rows that include itself, so its p-value is not larger than a new row's with
    the same score: requests of new rows seem no more unusual than they are.
    """
    numbers = np.array([len(of_class) for of_class in ranked])[classes]
    p_values = Ranking(ranked).p_values(scores, classes) - 1.0 / (1.0 + numbers)
    order = np.random.default_rng(0).permutation(len(scores))
    order = order[np.argsort(captures[order], kind="stable")]
    _, firsts, counts = np.unique(captures[order], return_index=True, return_counts=True)
    place = np.arange(len(order)) - np.repeat(firsts, counts)
    row = np.repeat(np.arange(len(firsts)), counts)
    is_kept = place < REQUEST_ROWS
    table = np.zeros((len(firsts), min(REQUEST_ROWS, int(counts.max()))), np.float32)
    table[row[is_kept], place[is_kept]] = p_values[order][is_kept]
    return table


def _is_lenient(one: int, other: int, ranked: tuple[Floats, ...], scaling: _Scaling) -> bool:
    """Tell whether some distance has a larger p-value in class ``one``, by more than chance explains."""
    of_one, of_other = (
        scaling.location[number] + scaling.scale[number] * ranked[number] for number in (one, other)
    )
    at = np.concatenate([of_one, of_other])
    share, other_share = (_share_at_least(among, at) for among in (of_one, of_other))
    variance = other_share * (1.0 - other_share) * (1.0 / len(of_one) + 1.0 / len(of_other))
    return bool((share - other_share > _DEVIATIONS * np.sqrt(variance) + 1.0 / len(of_one)).any())


def _share_at_least(ascending: Floats, at: Floats) -> npt.NDArray[np.float64]:
    below = np.searchsorted(ascending, at, side="left")
    return np.asarray(1.0 - below / len(ascending), np.float64)


class _Subspace(NamedTuple):
    mean: Floats
    components: Floats
    variances: Floats
    noise: float


def _held_out(documents: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.bool_]:
    names = np.unique(documents)
    chosen = np.random.default_rng(0).permutation(names)[: len(names) // 2]
    return np.isin(documents, chosen)


def _check_size(held_out: int, documents: int, p_value: float) -> None:
    needed = rows_needed(p_value)
    if held_out < needed:
        raise AnomalyError(
            f"vectors: {held_out} held-out rows are too few for a p-value of {p_value}: it needs {needed}, "
            f"so about {2 * needed} rows in all; give more rows, or ask for a higher p-value"
        )
    if documents < _LEAST_DOCUMENTS:
        raise AnomalyError(
            f"documents: rows of {documents} requests are too few, need {_LEAST_DOCUMENTS}: "
            "rows of one request resemble each other"
        )


def _subspace(units: Matrix, count: int) -> _Subspace:
    mean = units.mean(axis=0)
    centred = units - mean
    count = max(1, min(count, len(units) // 4, units.shape[1] // 2))
    if not np.linalg.norm(centred, axis=1).max() > _SAME:
        raise AnomalyError("vectors have no spread: they must differ from each other")
    # Both Gram matrices have the same nonzero eigenvalues, in ascending order; decompose the smaller one.
    if units.shape[1] <= len(units):
        values, vectors = np.linalg.eigh(centred.T @ centred)
        components = vectors[:, -count:].T
    else:
        values, left = np.linalg.eigh(centred @ centred.T)
        components = left[:, -count:].T @ centred / np.sqrt(values[-count:, None])
    inside = float(values[-count:].sum())
    outside = max(float((centred * centred).sum()) - inside, _SAME * inside)
    return _Subspace(
        mean.astype(np.float32),
        np.ascontiguousarray(components[::-1], np.float32),
        (values[-count:][::-1] / len(units)).astype(np.float32),
        outside / len(units) / (units.shape[1] - count),
    )


def _distances(units: Matrix, subspace: _Subspace) -> Floats:
    narrow = units.astype(np.float32)
    centred = narrow - subspace.mean
    in_subspace = project(centred, np.ones(len(centred)), subspace.components)
    energy = np.einsum("ij,ij->i", centred, centred)
    return distance(in_subspace, energy, subspace.variances, subspace.noise)


def _probe(spec: Direction, mean: Floats, held_out: Matrix, p_value: float) -> Probe:
    where = f"probe {spec.name}"
    direction = np.asarray(spec.direction, np.float64).reshape(-1)
    length = float(np.linalg.norm(direction))
    centre = mean if spec.mean is None else np.asarray(spec.mean, np.float64).reshape(-1)
    if direction.shape != mean.shape or centre.shape != mean.shape:
        raise AnomalyError(f"{where}: direction and mean must have d_model {len(mean)} values")
    if not (np.isfinite(length) and length > 0 and np.isfinite(centre).all()):
        raise AnomalyError(f"{where}: direction must be finite and not zero, mean finite")
    unit = direction / length
    threshold = spec.threshold
    if threshold is None:
        ranked = np.sort((held_out - centre) @ unit)
        threshold = float(ranked[math.ceil((len(ranked) + 1) * (1 - p_value)) - 1])
    return Probe(
        name=spec.name,
        direction=unit.astype(np.float32),
        mean=centre.astype(np.float32),
        threshold=threshold,
    )
