"""Benign requests and the nulls that are made of them: vectors that say nothing of their request. Pure."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.trust.reading import Incidents
from workers.nla import fidelity
from workers.training.data.dataset import Samples

BENIGN, PLACEBO, SHUFFLED, SAME_TOKEN, RANDOM, MEAN, STEERED = (
    "benign",
    "placebo",
    "shuffled",
    "same token",
    "random",
    "mean",
    "random steering",
)
PROMPT_ROWS, ANSWER_ROWS = 2, 3
"""Positions of a request, as in the shipped concept calibration."""
_NOISE: Final = 0.01
"""Length of the noise on the layer's mean, as in `subtext calibrate`."""
Rows = NDArray[np.int64]


def choose(samples: Samples, count: int, *, seed: int = 0) -> Rows:
    """Return the rows of up to ``count`` random requests of real users, (requests, 5), by position."""
    rng = np.random.default_rng(seed)
    real = np.flatnonzero(samples.is_real == 1)
    order = real[np.argsort(samples.documents[real], kind="stable")]
    groups = np.split(order, np.flatnonzero(np.diff(samples.documents[order])) + 1)
    chosen: list[Rows] = []
    for number in rng.permutation(len(groups)).tolist():
        is_answer = samples.is_answer[groups[number]] == 1
        prompt, answer = groups[number][~is_answer], groups[number][is_answer]
        if len(prompt) >= PROMPT_ROWS and len(answer) >= ANSWER_ROWS and len(chosen) < count:
            drawn = np.concatenate(
                [
                    rng.choice(prompt, PROMPT_ROWS, replace=False),
                    rng.choice(answer, ANSWER_ROWS, replace=False),
                ]
            )
            chosen.append(drawn[np.argsort(samples.positions[drawn])])
    return np.array(chosen, np.int64).reshape(-1, PROMPT_ROWS + ANSWER_ROWS)


def benign(samples: Samples, rows: Rows) -> Incidents:
    """Return the requests as they were."""
    return Incidents(
        samples.vectors[rows],
        samples.tokens[rows],
        samples.is_answer[rows].astype(np.uint8),
        samples.positions[rows],
    )


def shuffled(requests: Incidents, *, seed: int = 0) -> Incidents:
    """Give each position the vector of another request's position of the same phase; tokens stay."""
    rng = np.random.default_rng(seed)
    vectors = np.empty_like(requests.vectors)
    for place in range(vectors.shape[1]):
        # Prompt positions come first in every request, so the same place is of the same phase.
        vectors[:, place] = requests.vectors[_derangement(len(vectors), rng), place]
    return requests._replace(vectors=vectors)


def same_token(requests: Incidents, samples: Samples, rows: Rows, *, seed: int = 0) -> Incidents:
    """Give each position the vector of another request at the same token and phase.

    A position whose token no other request has in that phase gets the vector of a random row of that phase.
    """
    rng = np.random.default_rng(seed)
    by_token: dict[tuple[int, int], list[int]] = {}
    keys = list(zip(samples.tokens.tolist(), samples.is_answer.tolist(), strict=True))
    for row, key in enumerate(keys):
        by_token.setdefault(key, []).append(row)
    partners = np.empty_like(rows)
    for place, own in np.ndenumerate(rows):
        row = int(own)
        known = np.array(by_token[keys[row]])
        others = known[samples.documents[known] != samples.documents[row]]
        if not len(others):
            others = np.flatnonzero(
                (samples.is_answer == samples.is_answer[row])
                & (samples.documents != samples.documents[row])
            )
        partners[place] = rng.choice(others)
    return requests._replace(vectors=samples.vectors[partners])


def random(requests: Incidents, *, seed: int = 0) -> Incidents:
    """Give each position a random direction as long as its own vector."""
    drawn = np.random.default_rng(seed).standard_normal(requests.vectors.shape)
    return requests._replace(vectors=_as_long(drawn, requests.vectors))


def mean(requests: Incidents, layer_mean: NDArray[np.floating], *, seed: int = 0) -> Incidents:
    """Give each position the layer's mean direction (d_model,) with a little noise, as long as its own."""
    noise = np.random.default_rng(seed).standard_normal(requests.vectors.shape)
    directions = fidelity.to_unit(layer_mean[None])[0] + _NOISE * fidelity.to_unit(noise)
    return requests._replace(vectors=_as_long(directions, requests.vectors))


def _derangement(count: int, rng: np.random.Generator) -> Rows:
    """Return a random order in which nothing keeps its place: one cycle through a random order."""
    order = rng.permutation(count)
    moved = np.empty(count, np.int64)
    moved[order] = np.roll(order, 1)
    return moved


def _as_long(directions: NDArray[np.floating], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(vectors.astype(np.float64), axis=-1, keepdims=True)
    return np.asarray(fidelity.to_unit(directions) * norms, np.float32)
