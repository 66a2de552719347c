"""Compare what the label head, which writes claims, names with the labels of held-out requests."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.trust.claims import figures
from bench.trust.claims.figures import Abstention, Bin, Recurrence
from workers.nla.checkpoint.labels import LabelHead
from workers.nla.checkpoint.projector import Projector
from workers.training.data.dataset import Samples


class Found(NamedTuple):
    """All figures."""

    recurrence: list[Recurrence]
    curve: list[Bin]
    abstention: Abstention


def measure(head: LabelHead, projector: Projector, run: Path, *, seed: int = 0) -> Found:
    """Return the figures of held-out requests of real users that have the usual number of positions.

    The truth is the labeller's word for the text, not a person's. A request's area is that of its last
    position, which the labeller has seen most of; its kinds are those of any position.
    """
    samples = Samples.load(run / "held_out.safetensors")
    rows = requests(samples)
    scores = head.score(projector.centre(samples.vectors[rows.ravel()]))
    areas, kinds = (one.reshape(*rows.shape, -1) for one in (scores.areas, scores.kinds))
    top = areas.argmax(axis=-1)
    named = np.where(areas.max(axis=-1) >= head.names.area_above, top, figures.NOTHING)
    above = np.array([head.names.kind_above[kind] for kind in head.names.kinds])
    labelled = (samples.kinds[rows][..., None] >> np.arange(len(above))) & 1 == 1
    right = samples.areas[rows].argmax(axis=-1)
    one_each = np.random.default_rng(seed).integers(rows.shape[1], size=len(rows))
    picked = np.arange(len(rows)), one_each
    return Found(
        [
            *figures.area_recurrence(named, right[:, -1]),
            *figures.kind_recurrence(kinds >= above, labelled.any(axis=1)),
        ],
        [
            *figures.curve(figures.AREA, areas.max(axis=-1)[picked], (top == right)[picked]),
            *figures.kind_curve(kinds[picked], labelled[picked]),
        ],
        figures.abstention(named, one_each),
    )


def requests(samples: Samples) -> figures.Numbers:
    """Return the rows of real users' requests, (requests, positions), in order of position."""
    real = np.flatnonzero(samples.is_real == 1)
    order = real[np.lexsort((samples.positions[real], samples.documents[real]))]
    groups = np.split(order, np.flatnonzero(np.diff(samples.documents[order])) + 1)
    most = max(len(rows) for rows in groups)
    return np.array([rows for rows in groups if len(rows) == most], np.int64)
