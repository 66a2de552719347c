"""The training loop of both halves: resumable, ended by examples or by minutes."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.training.batching import batch_order
from workers.training.checkpoint import Position, load_checkpoint, save_checkpoint
from workers.training.config import Training
from workers.training.progress import Progress
from workers.training.schedule import rate_factor, run_progress

_CLIP = 1.0
_SMOOTHING = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is trained."""

    title: str
    parameters: dict[str, Any]
    lengths: list[int]
    """Length of every training example, in tokens."""
    loss: Callable[[NDArray[np.int64]], Any]
    """Loss of a batch of rows."""
    check: Callable[[], dict[str, float]]
    """Cheap held-out figures, taken at every checkpoint."""


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
    """Train from the last checkpoint to the end of the budget; the weights are left in the task.

    With `finish` the last checkpoint is taken as the end.
    """
    import torch

    optimizer: Any = torch.optim.AdamW(task.parameters.values(), lr=config.learning_rate, weight_decay=0.0)
    position = load_checkpoint(checkpoint, task.parameters, optimizer)
    order = batch_order(task.lengths, batch=config.batch, examples=config.max_examples, seed=seed)
    progress = Progress(task.title, total=1000, log=log, done=round(_share(position, config) * 1000))
    saved = clock()
    started = saved - position.minutes * 60
    while not (position.done or finish):
        rows = order[position.batches]
        loss = _step(task, optimizer, rows, config.learning_rate * rate_factor(_share(position, config)))
        position.loss = (
            loss if position.batches == 0 else _SMOOTHING * position.loss + (1 - _SMOOTHING) * loss
        )
        position.batches += 1
        position.seen += len(rows)
        position.minutes = (clock() - started) / 60
        share = _share(position, config)
        position.done = share >= 1
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


def _step(task: Task, optimizer: Any, rows: NDArray[np.int64], rate: float) -> float:
    import torch

    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    loss = task.loss(rows)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(task.parameters.values(), _CLIP)
    optimizer.step()
    return float(loss.detach())
