"""Accuracy of themes and kinds in readings, with the labeller's accuracy as reference; pure."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from workers.nla import fidelity
from workers.nla.checkpoint.labels import LabelHead
from workers.nla.claims import VectorLabels
from workers.nla.fidelity import Interval
from workers.training.data.dataset import Samples
from workers.training.data.material import Material
from workers.training.fit.labels import LabelTargets
from workers.training.measure import evaluation

Table = dict[str, Interval]
ORIGINS: Final = {"sets": 0, "real": 1}
_FEWEST: Final = 20
"""Requests that the labeller must get right for a ratio to its accuracy."""
_Z95: Final = 1.959964


def held_out(samples: Samples, centred: NDArray[np.float32], *, rounds: int) -> evaluation.HeldOutSet:
    """Return samples in the form that the trainer's measurements need, without texts and token means."""
    n = len(samples)
    material = Material([""] * n, samples.context, samples.next_tokens[:, 0], samples.vectors, centred)
    return evaluation.HeldOutSet(samples, material, 1.0, np.zeros((n, 1), np.float32), rounds)


def measure(
    head: LabelHead,
    known: evaluation.HeldOutSet,
    targets: LabelTargets,
    on_answer: Mapping[int, int] | None,
) -> Table:
    """Return how often areas, topics and kinds are right, and how often the pair abstains.

    `on_answer` is the area that the labeller finds in each document's answer, or None without chats.
    """
    table = {
        name: to_interval(figure)
        for name, figure in evaluation.measure_themes(head, known, targets).items()
    }
    if on_answer is not None:
        ceiling = evaluation.measure_labeller(known, targets, on_answer)
        table |= {name: to_interval(figure) for name, figure in ceiling.items()}
        table |= against_labeller(head, known, targets, on_answer)
    labelled = head.label(known.material.centred)
    table |= topics(labelled, targets, list(head.names.topics), known.samples.documents, known.rounds)
    table |= kinds(evaluation.measure_kinds(head, known, targets))
    return table


def against_labeller(
    head: LabelHead, known: evaluation.HeldOutSet, targets: LabelTargets, on_answer: Mapping[int, int]
) -> Table:
    """Return the accuracy of the pooled area, divided by the labeller's accuracy on the answers."""
    samples, table = known.samples, {}
    areas = head.score(known.material.centred).areas
    for origin, is_real in ORIGINS.items():
        rows = np.flatnonzero((samples.is_answer == 1) & (samples.is_real == is_real))
        names, first = np.unique(samples.documents[rows], return_index=True)
        if not len(names):
            continue
        truth = targets.areas[rows[first]].argmax(axis=1)
        pooled = [areas[rows[samples.documents[rows] == name]].mean(axis=0).argmax() for name in names]
        theirs = np.array([on_answer[name] for name in names.tolist()]) == truth
        if theirs.sum() >= _FEWEST:
            table[f"pooled_area_to_labeller_{origin}"] = ratio(
                np.array(pooled) == truth, theirs, names, rounds=known.rounds
            )
    return table


def topics(
    labelled: Sequence[VectorLabels],
    targets: LabelTargets,
    names: Sequence[str],
    documents: NDArray[np.int64],
    rounds: int,
) -> Table:
    """Return how often a named topic equals the labeller's, and how often the pair abstains."""
    # The index after the last topic means that the labeller has none.
    truth = [names[index] if index < len(names) else None for index in targets.topic.tolist()]
    flags = {
        "abstained_area": [one.area is None for one in labelled],
        "abstained_topic": [one.topic is None for one in labelled],
        "named_no_kind": [not one.kinds for one in labelled],
    }
    table = {
        name: fidelity.mean_interval(np.array(values, np.float64), documents, rounds=rounds)
        for name, values in flags.items()
    }
    named = np.array([row for row, one in enumerate(labelled) if one.topic is not None], np.int64)
    if len(named):
        right = np.array([labelled[row].topic == truth[row] for row in named.tolist()], np.float64)
        table["topic_right_where_named"] = fidelity.mean_interval(right, documents[named], rounds=rounds)
    return table


def kinds(figures_by_kind: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return every kind's AUROC and recall at 1% false positives, and their averages over kinds."""
    table: Table = {}
    for kind, figures in figures_by_kind.items():
        there, total = figures["requests_with"], figures["requests"]
        table[f"kind_auroc/{kind}"] = auroc_interval(figures["auroc"], there, total - there)
        table[f"kind_recall/{kind}"] = to_interval(figures["recall_at_1pct_fpr"])
    for name in ("auroc", "recall"):
        if figures_by_kind:
            table[f"kind_{name}"] = average([table[f"kind_{name}/{kind}"] for kind in figures_by_kind])
    return table


def average(parts: Sequence[Interval]) -> Interval:
    """Return the mean of independent estimates, with the number of estimates as n."""
    value, low, high = (float(np.mean([part[index] for part in parts])) for index in range(3))
    below, above = (
        float(np.linalg.norm([part[index] - part.value for part in parts])) / len(parts) for index in (1, 2)
    )
    return Interval(value, max(value - below, low), min(value + above, high), len(parts))


def auroc_interval(auroc: float, positives: int, negatives: int) -> Interval:
    """Return an AUROC with the interval of Hanley and McNeil (1982)."""
    both, twice = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    variance = (
        auroc * (1 - auroc) + (positives - 1) * (both - auroc**2) + (negatives - 1) * (twice - auroc**2)
    )
    half = _Z95 * (max(variance, 0.0) / (positives * negatives)) ** 0.5
    return Interval(auroc, max(auroc - half, 0.0), min(auroc + half, 1.0), positives + negatives)


def ratio(
    ours: NDArray[np.bool_], theirs: NDArray[np.bool_], documents: NDArray[np.int64], *, rounds: int
) -> Interval:
    """Return the ratio of our hits to theirs on the same rows, (n,) each."""
    less = evaluation.one_minus_ratio(
        ours.astype(np.float64), theirs.astype(np.float64), documents, rounds=rounds
    )
    return Interval(1 - less.value, 1 - less.high, 1 - less.low, less.n)


def to_interval(figure: Mapping[str, Any]) -> Interval:
    """Return a figure of the trainer's card as an interval."""
    low, high = figure["ci95"]
    return Interval(figure["value"], low, high, figure["n"])
