"""Fit a probe on requests and measure it on others. Pure.

A logistic regression (L2) separates unit vectors of requests about the concept from others'. Requests are
held out whole. A held-out request's score is pooled over its positions as a flag pools them
(`workers.calibrate.incidents`): the k-th largest. The threshold is the conformal one for the false-positive
rate on the held-out negatives, and recall is the share of held-out positives above it.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.calibrate import incidents, rates
from workers.judge.probes import LinearProbe, ProbeError
from workers.nla import fidelity

HELD_OUT: Final = 2
"""One request of so many is held out, of positives, negatives and benign requests each."""
LEAST_POSITIVES: Final = 20
"""Fewer prompts leave less than ten to measure recall on."""
_ROUNDING: Final = 1e-9
"""A share may come out a little off a whole number."""
_STRENGTH: Final = 10.0  # inverse of the L2 penalty on unit vectors
_LENGTHS: Final = (16, 64)

Vectors = NDArray[np.floating[Any]]
Scores = NDArray[np.float64]


class Hyperplane(NamedTuple):
    """A linear classifier of unit vectors: positive where weights . u + intercept is above 0."""

    weights: Scores
    """(d_model,)."""
    intercept: float


class Requests(NamedTuple):
    """Requests with the vectors of their sampled positions: two columns by row, the others by request."""

    vectors: NDArray[np.float32]
    """(rows, d_model)."""
    documents: NDArray[np.int64]
    """Number of each row's request, (rows,)."""
    is_positive: NDArray[np.bool_]
    """(n,)."""
    texts: Sequence[str | None]
    """The prompts, n; None for benign requests of which only vectors are known."""
    tokens: NDArray[np.int64]
    """Length of each prompt without the chat template, (n,); 0 where it is not known."""

    @property
    def has_text(self) -> NDArray[np.bool_]:
        """Which requests are prompts, (n,)."""
        return np.array([text is not None for text in self.texts], bool)


class Figures(NamedTuple):
    """What one method reaches on held-out requests at the false-positive rate."""

    recall: fidelity.Interval | None
    """Of positives above the threshold; None where the negatives are too few for the rate."""
    by_length: dict[str, fidelity.Interval]
    """The same by tokens of the prompt."""
    auroc: float
    """Chance that a positive scores above a negative."""
    positives: int
    negatives: int
    allowed: int
    """Held-out negatives that may exceed the threshold; -1 without one."""
    upper_limit: float
    """One-sided, with 95% confidence, of the false-positive rate at the threshold; 1 without one."""


class Rule(NamedTuple):
    """How scores of positions become a verdict on a request."""

    positions_required: int
    false_positive_rate: float


class Name(NamedTuple):
    """What a probe is of."""

    name: str
    model: str
    layer: int


class Fitted(NamedTuple):
    """A probe, and what was measured on held-out requests."""

    probe: LinearProbe
    measured: Figures
    on_prompts: Figures
    """Without the benign requests of which only vectors are known: on what the text classifier has, too."""
    text_classifier: Figures


def fit(requests: Requests, rule: Rule, name: Name, *, seed: int = 0) -> Fitted:
    """Fit on half of the requests and measure on the others; ProbeError when there are too few of them."""
    is_negative = ~requests.is_positive
    check_enough(
        int(requests.is_positive.sum()),
        int((is_negative & requests.has_text).sum()),
        int((~requests.has_text).sum()),
        rule,
    )
    is_held_out = hold_out(requests, seed=seed)
    trained_on = ~is_held_out[requests.documents]
    is_positive = requests.is_positive[requests.documents]
    probe = to_probe(separate(requests.vectors[trained_on], is_positive[trained_on]), name)
    # By the probe as it is stored, so that rounding moves no request across the threshold.
    scores = pool(requests, probe.score(requests.vectors), rule.positions_required)
    threshold = _choose(scores[is_held_out & is_negative], rule)
    if not threshold.value < 1.0:
        raise ProbeError(
            "negative: some prompts reach the highest score, so that no threshold tells the positives; are"
            " they about the concept?"
        )
    on_prompts = is_held_out & requests.has_text
    return Fitted(
        dataclasses.replace(probe, threshold=threshold.value),
        _measure(requests, scores, is_held_out, rule),
        _measure(requests, scores, on_prompts, rule),
        _measure(requests, score_texts(requests, is_held_out), on_prompts, rule),
    )


def separate(vectors: Vectors, is_positive: NDArray[np.bool_]) -> Hyperplane:
    """Return the hyperplane of a logistic regression on unit vectors; rows are (n, d_model) and (n,).

    Both classes weigh the same, however many rows they have.
    """
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=_STRENGTH, max_iter=2000, class_weight="balanced")
    fitted = model.fit(fidelity.to_unit(np.asarray(vectors, np.float32)), is_positive)
    return Hyperplane(np.asarray(fitted.coef_[0], np.float64), float(fitted.intercept_[0]))


def to_probe(hyperplane: Hyperplane, name: Name) -> LinearProbe:
    """Return the probe of a hyperplane: its direction, and its point nearest to 0, which scores 0.5."""
    weights, intercept = hyperplane
    length = float(np.linalg.norm(weights))
    return LinearProbe(
        **name._asdict(),
        direction=np.asarray(weights / length, np.float32),
        mean=np.asarray(-intercept / length**2 * weights, np.float32),
        scale=length,
        threshold=0.5,
    )


def hold_out(requests: Requests, *, seed: int) -> NDArray[np.bool_]:
    """Return which requests are held out, (n,): half of positives, of negatives and of benign ones each.

    Requests of one kind do not change the split of the others, so that two fits can be compared.
    """
    kind = requests.is_positive.astype(np.int64) + 2 * requests.has_text
    held = np.zeros(len(kind), bool)
    for one in np.unique(kind):
        members = np.random.default_rng([seed, one]).permutation(np.flatnonzero(kind == one))
        held[members[: len(members) // HELD_OUT]] = True
    return held


def pool(requests: Requests, scores: Scores, positions_required: int) -> Scores:
    """Return each request's score, (n,), from those of its positions, as a flag counts them."""
    order = np.argsort(requests.documents, kind="stable")
    ends = np.searchsorted(requests.documents[order], np.arange(len(requests.texts) + 1))
    return np.array(
        [
            incidents.score(scores[order[start:end]], positions_required)
            for start, end in itertools.pairwise(ends)
        ]
    )


def score_texts(requests: Requests, is_held_out: NDArray[np.bool_]) -> Scores:
    """Return what a classifier of the prompts alone, fitted on the same ones, makes of each, (n,).

    Words and pairs of words by TF-IDF, then a logistic regression; requests without a text score 0.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    rows = np.flatnonzero(requests.has_text)
    texts = [str(requests.texts[row]) for row in rows]
    known = np.flatnonzero(~is_held_out[rows])
    classifier = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        LogisticRegression(C=_STRENGTH, max_iter=2000, class_weight="balanced"),
    )
    classifier.fit([texts[place] for place in known], requests.is_positive[rows[known]])
    scores = np.zeros(len(requests.texts))
    scores[rows] = classifier.predict_proba(texts)[:, 1]
    return scores


def length_of(tokens: int) -> str:
    """Return the length bucket of a prompt with so many tokens."""
    short, long = _LENGTHS
    if tokens < short:
        return f"under {short} tokens"
    return f"{short} to {long - 1} tokens" if tokens < long else f"{long} tokens and more"


def check_enough(positives: int, negatives: int, benign: int, rule: Rule) -> None:
    """Raise ProbeError, with what is needed, unless so many requests of each kind suffice for the rate."""
    if positives < LEAST_POSITIVES:
        raise ProbeError(
            f"positive: {positives} prompts are too few, at least {LEAST_POSITIVES} are needed"
        )
    held = negatives // HELD_OUT + benign // HELD_OUT
    needed = rates.rank_needed(rule.false_positive_rate)
    if held < needed or negatives < HELD_OUT:
        raise ProbeError(
            f"negative: {negatives} prompts and {benign} benign requests leave {held} held out; a"
            f" false-positive rate of {rule.false_positive_rate:g} needs 1 / rate - 1 = {needed} held out,"
            f" so {HELD_OUT * needed} negatives in all, and"
            f" {HELD_OUT * rates.requests_needed(rule.false_positive_rate)} for an upper limit as"
            " low. Give more negative prompts, vectors of benign requests (--benign), or a higher"
            " --false-positive-rate"
        )


class _Threshold(NamedTuple):
    value: float
    allowed: int


def _choose(negatives: Scores, rule: Rule) -> _Threshold:
    """Return the conformal threshold: its rate holds on average, until calibrated with a limit."""
    allowed = math.floor(rule.false_positive_rate * (len(negatives) + 1) + _ROUNDING) - 1
    above = float(np.sort(negatives)[len(negatives) - 1 - allowed])
    return _Threshold(min(1.0, float(np.nextafter(above, 1.0))), allowed)


def _measure(requests: Requests, scores: Scores, among: NDArray[np.bool_], rule: Rule) -> Figures:
    from sklearn.metrics import roc_auc_score

    is_positive = requests.is_positive[among]
    negatives = scores[among][~is_positive]
    auroc = float(roc_auc_score(is_positive, scores[among]))
    figures = Figures(None, {}, auroc, int(is_positive.sum()), len(negatives), -1, 1.0)
    if len(negatives) < rates.rank_needed(rule.false_positive_rate):
        return figures
    threshold = _choose(negatives, rule)
    hits = scores[among][is_positive] >= threshold.value
    buckets = np.array([length_of(int(count)) for count in requests.tokens[among][is_positive]])
    return figures._replace(
        recall=fidelity.share_interval(hits),
        by_length={
            bucket: fidelity.share_interval(hits[buckets == bucket])
            for bucket in map(length_of, (0, *_LENGTHS))
            if (buckets == bucket).any()
        },
        allowed=threshold.allowed,
        upper_limit=rates.upper_limit(threshold.allowed, len(negatives)),
    )
