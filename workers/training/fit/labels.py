"""Train the label head: a small network from the centred vector to area, topic, register and kinds.

The labels in training readings must be as reliable as those of unseen vectors, so they come from heads that
were not trained on the same chats (two folds).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.nla.checkpoint.labels import FILE, NAMES, LabelHead, Names
from workers.training.config import LabelFit
from workers.training.data.dataset import Samples
from workers.training.data.labels import Taxonomy

_NEVER = 2.0
"""A threshold that no probability reaches."""
_FEWEST = 20
"""Smallest number of held-out rows behind a threshold."""
Centred = NDArray[np.float32]


class LabelTargets(NamedTuple):
    """The head's targets for n rows."""

    areas: NDArray[np.float32]
    """Probabilities, (n, areas)."""
    topic: NDArray[np.int64]
    register: NDArray[np.int64]
    kinds: NDArray[np.float32]
    """0 or 1, (n, kinds)."""


def wanted_of(samples: Samples, taxonomy: Taxonomy) -> LabelTargets:
    """Return a split's labels as targets."""
    bits = samples.kinds[:, None] >> np.arange(len(taxonomy.kinds))[None] & 1
    return LabelTargets(samples.areas, samples.topic, samples.register, bits.astype(np.float32))


def fit(
    centred: Centred, wanted: LabelTargets, taxonomy: Taxonomy, config: LabelFit, *, seed: int
) -> LabelHead:
    """Train one head on centred vectors (n, d); until `set_thresholds` it names nothing."""
    import torch

    torch.manual_seed(seed)
    names = _names(taxonomy, config.hidden)
    sizes = [len(names.areas), len(names.topics), len(names.registers), len(names.kinds)]
    hidden = torch.nn.Linear(centred.shape[1], config.hidden)
    out = torch.nn.Linear(config.hidden, sum(sizes))
    network = torch.nn.Sequential(hidden, torch.nn.GELU(approximate="tanh"), torch.nn.Dropout(0.3), out)
    optimizer: Any = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    steps = config.epochs * -(-len(centred) // config.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=config.learning_rate * 2, total_steps=steps
    )
    rng = np.random.default_rng(seed)
    tensors = [torch.from_numpy(np.ascontiguousarray(one)) for one in (centred, *wanted)]
    for _ in range(config.epochs):
        order = rng.permutation(len(centred))
        for start in range(0, len(order), config.batch):
            rows = torch.from_numpy(order[start : start + config.batch])
            vectors, *targets = (one[rows] for one in tensors)
            loss = _loss(network(vectors), targets, sizes)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    weights = (hidden.weight, hidden.bias, out.weight, out.bias)
    return LabelHead(names, *(value.detach().half().float().numpy() for value in weights))


def cross_fit(
    centred: Centred,
    targets: LabelTargets,
    documents: NDArray[np.int64],
    taxonomy: Taxonomy,
    config: LabelFit,
    *,
    seed: int,
) -> list[LabelHead]:
    """Return two heads; head `i` was trained without the documents for which `documents % 2 == i`."""
    return [
        fit(
            centred[documents % 2 != fold],
            LabelTargets(*(one[documents % 2 != fold] for one in targets)),
            taxonomy,
            config,
            seed=seed + 1 + fold,
        )
        for fold in range(2)
    ]


def set_thresholds(head: LabelHead, centred: Centred, targets: LabelTargets, config: LabelFit) -> LabelHead:
    """Return the head with thresholds set on rows that were not trained on."""
    scores, names = head.score(centred), head.names
    areas = targets.areas.argmax(axis=1)
    topics = list(names.topics)
    in_area = np.array([names.areas.index(names.topics[topic]) for topic in topics])
    within = np.where(in_area[None] == scores.areas.argmax(axis=1)[:, None], scores.topics, 0.0)
    chosen = {
        "area_above": accuracy_threshold(
            scores.areas.max(axis=1), scores.areas.argmax(axis=1) == areas, config.area_accuracy
        ),
        "topic_above": accuracy_threshold(
            within.max(axis=1), within.argmax(axis=1) == targets.topic, config.topic_accuracy
        ),
        "kind_above": {
            kind: false_positive_threshold(
                scores.kinds[:, index], targets.kinds[:, index] > 0, config.kind_false_positives
            )
            for index, kind in enumerate(names.kinds)
        },
    }
    return head._replace(names=names.model_copy(update=chosen))


def accuracy_threshold(scores: NDArray[Any], is_right: NDArray[np.bool_], accuracy: float) -> float:
    """Return the lowest score at or above which at least `accuracy` of the rows are right; pure.

    `scores` and `is_right` are (n,). A score needs 20 rows at or above it; if none qualifies, the threshold
    is above 1.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, count = scores[order], np.arange(1, len(order) + 1)
    right = np.cumsum(is_right[order]) / count
    # A threshold cannot separate rows with equal scores.
    is_last = np.append(ranked[1:] != ranked[:-1], True)
    enough = np.flatnonzero((right >= accuracy) & (count >= _FEWEST) & is_last)
    return float(ranked[enough[-1]]) if len(enough) else _NEVER


def false_positive_threshold(scores: NDArray[Any], is_there: NDArray[np.bool_], rate: float) -> float:
    """Return the score that at most `rate` of the rows without the kind reach, at least 0.5; pure.

    `scores` and `is_there` are (n,). If fewer than 20 rows or all rows have the kind, the threshold is
    above 1.
    """
    if is_there.sum() < _FEWEST or is_there.all():
        return _NEVER
    others = np.sort(scores[~is_there])
    above = others[min(int(np.ceil(len(others) * (1 - rate))), len(others) - 1)]
    return max(float(np.nextafter(above, np.float32(2))), 0.5)


def save_labels(head: LabelHead, folder: Path) -> None:
    """Write the weights in float16, and the names with their thresholds."""
    from safetensors.numpy import save_file

    arrays = {name: getattr(head, name) for name in head._fields if name != "names"}
    save_file(
        {name: np.ascontiguousarray(one.astype(np.float16)) for name, one in arrays.items()}, folder / FILE
    )
    (folder / NAMES).write_text(head.names.model_dump_json(indent=2) + "\n")


def _names(taxonomy: Taxonomy, hidden: int) -> Names:
    kinds = tuple(kind.name for kind in taxonomy.kinds)
    return Names(
        areas=tuple(taxonomy.areas),
        topics=taxonomy.area_of_topics,
        registers=taxonomy.register_names,
        kinds=kinds,
        area_above=_NEVER,
        topic_above=_NEVER,
        kind_above=dict.fromkeys(kinds, _NEVER),
        hidden=hidden,
    )


def _loss(logits: Any, targets: Sequence[Any], sizes: list[int]) -> Any:
    import torch

    areas, topics, registers, kinds = logits.split(sizes, dim=1)
    wanted_areas, topic, register, wanted_kinds = targets
    functional = torch.nn.functional
    # Rows labelled "something else" have no topic, so they train only the other outputs.
    known = topic < sizes[1]
    topic_loss = functional.cross_entropy(topics[known], topic[known]) if known.any() else 0.0
    return (
        functional.cross_entropy(areas, wanted_areas)
        + 0.3 * topic_loss
        + 0.3 * functional.cross_entropy(registers, register)
        + 3.0 * functional.binary_cross_entropy_with_logits(kinds, wanted_kinds)
    )
