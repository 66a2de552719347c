"""What the trained verbalizer writes freely: about training vectors, held-out vectors and noise.

The reconstructor is adapted to the first and the pair is measured on the others. Everything is kept
in files, so that a killed run goes on and the engine's memory is free again for training.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.nla.verbalizer import EngineSettings, Explanation, parse_explanation
from workers.training import tasks
from workers.training.config import RunConfig
from workers.training.dataset import Samples
from workers.training.progress import Progress
from workers.training.verbalizer import Verbalizer

Reader = Callable[[NDArray[np.float32]], list[Explanation]]
_MAX_NEW_TOKENS = 96
_KEPT_EVERY = 64
"""Readings between two writes of their file: what a kill can lose."""
_NOISE = 64


class Readings(NamedTuple):
    """Which rows of a split were read, and what was said about each."""

    rows: NDArray[np.int64]
    explanations: list[Explanation]

    @property
    def texts(self) -> list[str]:
        """The explanations alone."""
        return [said.text for said in self.explanations]


def train_rows(config: RunConfig, train: Samples) -> NDArray[np.int64]:
    """Return the training rows that are read."""
    return tasks.spread(len(train), config.adaptation.readings)


def held_out_rows(config: RunConfig, held_out: Samples) -> NDArray[np.int64]:
    """Return the held-out rows that are read."""
    return tasks.spread(len(held_out), config.evaluation.round_trip_vectors)


def noise(config: RunConfig, d_model: int) -> NDArray[np.float32]:
    """Return random directions: vectors that mean nothing."""
    return np.random.default_rng(config.seed).standard_normal((_NOISE, d_model)).astype(np.float32)


def keep_readings(
    path: Path, vectors: NDArray[np.float32], reader: Reader, *, log: Callable[[str], None]
) -> None:
    """Read `vectors` into a file, one JSON line each, going on behind what it already holds."""
    done = len(load_readings(path)) if path.exists() else 0
    progress = Progress(path.stem, total=len(vectors), log=log, done=done)
    for start in range(done, len(vectors), _KEPT_EVERY):
        said = reader(vectors[start : start + _KEPT_EVERY])
        with path.open("a") as file:
            file.write("".join(json.dumps(explanation._asdict()) + "\n" for explanation in said))
        progress.advance(start + len(said))


def load_readings(path: Path) -> list[Explanation]:
    """Return what `keep_readings` wrote."""
    return [Explanation(**json.loads(line)) for line in path.read_text().splitlines()]


def hugging_face_reader(av: Verbalizer) -> Reader:
    """Read with the verbalizer in memory: slow, and needs nothing else."""
    return lambda vectors: [
        parse_explanation(answer) for answer in av.write(vectors, max_new_tokens=_MAX_NEW_TOKENS)
    ]


@contextmanager
def engine_reader(shipped: Path, base_model: Path, assembled: Path, tokenizer: Any) -> Iterator[Reader]:
    """Read as the worker does: the shipped adapters merged, on vLLM."""
    from workers.nla import assemble, meta, verbalizer

    verbalizer.prepare_environment()
    av = assemble.assemble(shipped, base_model, assembled) / "av"
    settings = EngineSettings(max_new_tokens=_MAX_NEW_TOKENS)
    engine = verbalizer.Verbalizer(av, meta.load_meta(av, "av"), tokenizer, settings)
    try:
        yield engine.verbalize
    finally:
        engine.close()
