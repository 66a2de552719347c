"""The resumable training loop of both halves."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.training.config import Training
from workers.training.fit.batching import batch_order
from workers.training.fit.checkpoint import Position, load_checkpoint, save_checkpoint
from workers.training.fit.schedule import rate_factor, run_progress
from workers.training.progress import Progress

_CLIP = 1.0
_SMOOTHING = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One training: parameters, examples and loss."""

    title: str
    parameters: dict[str, Any]
    lengths: list[int]
    """Length of every training example, in tokens."""
    loss: Callable[[NDArray[np.int64], np.random.Generator], Any]
    """Loss of a batch of rows. All randomness must come from the generator, so that a resumed run is
    reproducible."""
    rates: Mapping[str, float] = field(default_factory=dict)
    """Factors on the learning rate by the first part of a parameter's name; the default is 1."""
    check: Callable[[], dict[str, float]]
    """Cheap held-out figures, computed at every checkpoint."""


def train(
    task: Task,
    config: Training,
    checkpoint: Path,
    *,
    seed: int,
    log: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
    finish: bool = False,
) -> Position:
    """Train the task's parameters in place, from the last checkpoint to the end of the budget.

    With `finish`, an existing checkpoint counts as the end.
    """
    import torch

    optimizer: Any = torch.optim.AdamW(_groups(task), lr=config.learning_rate, weight_decay=0.0)
    position = load_checkpoint(checkpoint, task.parameters, optimizer)
    order = batch_order(task.lengths, batch=config.batch, examples=config.max_examples, seed=seed)
    progress = Progress(task.title, total=1000, log=log, done=round(_share(position, config) * 1000))
    saved = clock()
    started = saved - position.minutes * 60
    is_over = position.done or (finish and position.batches > 0)
    while not is_over:
        rows = order[position.batches]
        rng = np.random.default_rng([seed, position.batches])
        factor = rate_factor(_share(position, config))
        loss = _step(task, optimizer, rows, rng, factor)
        position.loss = (
            loss if position.batches == 0 else _SMOOTHING * position.loss + (1 - _SMOOTHING) * loss
        )
        position.batches += 1
        position.seen += len(rows)
        position.minutes = (clock() - started) / 60
        share = _share(position, config)
        position.done = is_over = share >= 1
        progress.advance(round(share * 1000), f"examples {position.seen} loss {position.loss:.3f}")
        if position.done or clock() - saved >= config.checkpoint_minutes * 60:
            position.history.append(_figures(task, position))
            log(f"{task.title}: {position.history[-1]}")
            save_checkpoint(checkpoint, task.parameters, optimizer, position)
            saved = clock()
    return position


def _share(position: Position, config: Training) -> float:
    return run_progress(
        position.seen, position.minutes, max_examples=config.max_examples, max_minutes=config.max_minutes
    )


def _figures(task: Task, position: Position) -> dict[str, float]:
    figures = {
        "examples": position.seen,
        "minutes": position.minutes,
        "loss": position.loss,
        **task.check(),
    }
    return {name: round(float(value), 4) for name, value in figures.items()}


def _groups(task: Task) -> list[dict[str, Any]]:
    """Group the parameters by learning-rate factor."""
    rates = {name: task.rates.get(name.partition(".")[0], 1.0) for name in task.parameters}
    return [
        {"params": [value for name, value in task.parameters.items() if rates[name] == rate], "speed": rate}
        for rate in sorted(set(rates.values()))
    ]


def _step(
    task: Task, optimizer: Any, rows: NDArray[np.int64], rng: np.random.Generator, factor: float
) -> float:
    import torch

    for group in optimizer.param_groups:
        group["lr"] = optimizer.defaults["lr"] * group["speed"] * factor
    optimizer.zero_grad()
    loss = task.loss(rows, rng)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(task.parameters.values(), _CLIP)
    optimizer.step()
    return float(loss.detach())
