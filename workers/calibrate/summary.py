"""The figures and thresholds of a calibration, from its readings; pure."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.calibrate.nulls import thresholds
from workers.nla import fidelity
from workers.nla.calibration import Calibration, Figures, is_typical
from workers.nla.candidates import RoundTrip, choose
from workers.nla.decoder import DecoderIdentity, GivenFacts, PositionClass
from workers.nla.positions import POSITION_CLASSES
from workers.nla.token_means import TokenMeans

_TOO_OFTEN = 0.05
"""Share of verified random or mean vectors above which a limit on the distance from the mean is set."""


class Vectors(NamedTuple):
    """Activations of calibration traffic."""

    rows: NDArray[np.float32]
    """Raw residual stream, (n, d_model)."""
    documents: NDArray[np.int64]
    """A number for each row's request, (n,)."""
    tokens: NDArray[np.int64] | None = None
    """Read token of each row, (n,); None where the file has none."""
    phases: NDArray[np.uint8] | None = None
    """0 for prefill and 1 for decode, (n,); None together with `tokens`."""
    positions: NDArray[np.int64] | None = None
    """Token position in its request, (n,); None where the file has none."""

    def take(self, chosen: NDArray[np.int64]) -> "Vectors":
        """Return the rows with the given numbers."""
        parts: list[Any] = [None if part is None else part[chosen] for part in self]
        return Vectors(*parts)

    @property
    def given(self) -> GivenFacts:
        """The facts that records give the decoder; placeholders where the file has no tokens."""
        if self.tokens is None or self.phases is None:
            return GivenFacts([0] * len(self.rows), ["decode"] * len(self.rows))
        return GivenFacts(self.tokens.tolist(), [("prefill", "decode")[phase] for phase in self.phases])


class Evidence(NamedTuple):
    """Vectors of one kind with their readings."""

    vectors: Vectors
    classes: Sequence[PositionClass]
    expected: NDArray[np.float64] | None
    """Prediction from the read token alone, fitted on other documents, (n, d_model)."""
    trip: RoundTrip


class Nulls(NamedTuple):
    """Readings that carry no information about the vector."""

    other: Evidence
    """Vectors paired with readings of another document's vector: the same-token null."""
    random: Evidence
    """Random directions of the layer's norm."""
    mean: Evidence
    """The layer's mean direction."""
    empty: NDArray[np.float32]
    """The AR's output for the empty text at the real rows' tokens, (n, d_model)."""


class CandidateScores(NamedTuple):
    """Scores of the chosen candidates of one kind of vectors, one row per vector."""

    rows: NDArray[np.float32]
    documents: NDArray[np.int64]
    classes: NDArray[np.str_]
    rebuilt: NDArray[np.float32]
    is_well_formed: NDArray[np.bool_]
    fve: NDArray[np.float64]
    token_fve: NDArray[np.float64] | None
    """FVE of the token means."""
    score: NDArray[np.float64]
    """The figure that thresholds apply to: FVE beyond the token, or FVE where tokens are unknown."""

    def take(self, chosen: NDArray[np.bool_]) -> "CandidateScores":
        """Return the rows that `chosen` (n,) selects."""
        parts: list[Any] = [None if part is None else part[chosen] for part in self]
        return CandidateScores(*parts)


class Bar(NamedTuple):
    """The conditions for a verified reading."""

    limits: dict[PositionClass, float]
    low: float | None = None  # smallest allowed squared distance from the mean direction
    high: float | None = None  # largest allowed squared distance

    def is_taken(self, scored: CandidateScores, mean: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which rows would be verified, (n,)."""
        limits = np.array([self.limits[kind] for kind in scored.classes.tolist()])
        typical = is_typical(scored.rows, mean, low=self.low, high=self.high)
        return np.asarray((scored.score > limits) & scored.is_well_formed & typical, bool)


def summarize(
    vectors: Vectors,
    real: Evidence,
    nulls: Nulls,
    *,
    identity: DecoderIdentity,
    pair_digest: str,
    token_means: TokenMeans | None,
) -> Calibration:
    """Compute every figure of a calibration.

    All same-token nulls set the thresholds. The share of these nulls that is verified is cross-validated:
    each half of the documents is tested against thresholds from the other half.
    """
    baseline, mean = fidelity.fve_baseline(vectors.rows), fidelity.mean_direction(vectors.rows)
    own, other, random, middle = (
        score(part, baseline=baseline) for part in (real, nulls.other, nulls.random, nulls.mean)
    )
    bar = set_bar(thresholds(other.score, other.classes, other.documents), random, middle, vectors, mean)
    shuffled = fidelity.fve(
        own.rows, own.rebuilt[fidelity.other_documents(own.documents)], baseline=baseline
    )
    empty = fidelity.fve(own.rows, nulls.empty, baseline=baseline)
    measured = {
        **_means(own, other),
        "shuffled_fve": fidelity.mean_interval(shuffled, own.documents),
        "empty_text_fve": fidelity.mean_interval(empty, own.documents),
        "random_vector_fve": fidelity.mean_interval(random.fve, random.documents),
        "mean_vector_fve": fidelity.mean_interval(middle.fve, middle.documents),
        "well_formed_share": fidelity.share_interval(own.is_well_formed),
    }
    for name, part, verdict in (
        ("verified_share", own, bar.is_taken(own, mean)),
        ("other_reading_verified_share", other, _crosswise(other, bar, mean)),
        ("random_vector_verified_share", random, bar.is_taken(random, mean)),
        ("mean_vector_verified_share", middle, bar.is_taken(middle, mean)),
    ):
        measured |= _shares(name, verdict, part.classes)
    return Calibration(
        figures=Figures(
            decoder_digest=pair_digest,
            model=identity.model,
            layer=identity.layer,
            d_model=identity.d_model,
            vectors=len(vectors.rows),
            fve_baseline=baseline,
            n=len(own.rows),
            candidates=real.trip.rebuilt.shape[1],
            verified_above=bar.limits,
            shuffled_fve_p95=max(bar.limits.values()),
            typical_spread_p1=bar.low,
            typical_spread_p99=bar.high,
            measured={name: figure.as_dict() for name, figure in measured.items()},
        ),
        mean=mean.astype(np.float32),
        real_fve=own.fve.astype(np.float32),
        shuffled_fve=shuffled.astype(np.float32),
        random_fve=random.fve.astype(np.float32),
        token_means=token_means,
    )


def score(evidence: Evidence, *, baseline: float) -> CandidateScores:
    """Choose the best candidate of every vector and score it."""
    vectors, classes, expected, trip = evidence
    choice = choose(vectors.rows, trip.rebuilt)
    chosen = [
        candidate[best] for candidate, best in zip(trip.candidates, choice.best.tolist(), strict=True)
    ]
    fves = fidelity.fve(vectors.rows, choice.rebuilt, baseline=baseline)
    token_fves = None if expected is None else fidelity.fve(vectors.rows, expected, baseline=baseline)
    return CandidateScores(
        rows=vectors.rows,
        documents=vectors.documents,
        classes=np.asarray(classes, np.str_),
        rebuilt=choice.rebuilt,
        is_well_formed=np.array([candidate.well_formed for candidate in chosen], bool),
        fve=fves,
        token_fve=token_fves,
        score=fves if token_fves is None else fidelity.fve_beyond_token(fves, token_fves),
    )


def set_bar(
    limits: dict[PositionClass, float],
    random: CandidateScores,
    middle: CandidateScores,
    vectors: Vectors,
    mean: NDArray[np.float64],
) -> Bar:
    """Return the verification conditions.

    If more than 5% of the mean or random vectors would be verified, the distance from the mean is limited
    to the benign 1st or 99th percentile, respectively.
    """
    bar = Bar(limits)
    spread = fidelity.spread(vectors.rows, mean)
    if bar.is_taken(middle, mean).mean() > _TOO_OFTEN:
        bar = bar._replace(low=float(np.percentile(spread, 1)))
    if bar.is_taken(random, mean).mean() > _TOO_OFTEN:
        bar = bar._replace(high=float(np.percentile(spread, 99)))
    return bar


def _means(own: CandidateScores, other: CandidateScores) -> dict[str, fidelity.Interval]:
    figures = {
        "fve": fidelity.mean_interval(own.fve, own.documents),
        "cosine": fidelity.mean_interval(fidelity.cosine(own.rows, own.rebuilt), own.documents),
        "same_token_null_fve": fidelity.mean_interval(other.fve, other.documents),
    }
    if own.token_fve is not None:
        figures["fve_beyond_token"] = fidelity.mean_interval(own.score, own.documents)
        figures["token_mean_fve"] = fidelity.mean_interval(own.token_fve, own.documents)
        figures["same_token_null_fve_beyond_token"] = fidelity.mean_interval(other.score, other.documents)
    return figures


def _shares(
    name: str, verdict: NDArray[np.bool_], classes: NDArray[np.str_]
) -> dict[str, fidelity.Interval]:
    """Return the verified share over all rows, and of each class that has rows."""
    parts = {name: np.ones(len(verdict), bool)}
    parts |= {f"{name}_{kind}": classes == kind for kind in POSITION_CLASSES}
    return {part: fidelity.share_interval(verdict[rows]) for part, rows in parts.items() if rows.any()}


def _crosswise(other: CandidateScores, bar: Bar, mean: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which nulls thresholds from the other half of the documents would verify, (n,)."""
    verdict, is_first = np.zeros(len(other.rows), bool), _is_first_half(other.documents)
    for half in (is_first, ~is_first):
        setting = other.take(~half)
        if len(setting.rows):
            limits = thresholds(setting.score, setting.classes, setting.documents)
            verdict[half] = bar._replace(limits=limits).is_taken(other.take(half), mean)
    return verdict


def _is_first_half(documents: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which rows belong to the documents of even rank, (n,)."""
    _, rank = np.unique(documents, return_inverse=True)
    return np.asarray(rank % 2 == 0, bool)
