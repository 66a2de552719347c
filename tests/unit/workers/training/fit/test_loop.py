"""A training that is cut short ends where an undisturbed one ends."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from workers.training.config import Training
from workers.training.fit.checkpoint import load_weights
from workers.training.fit.loop import Task, train

_CONFIG = Training(learning_rate=0.05, batch=4, max_examples=200, checkpoint_minutes=0.0)


class _Killed(BaseException):
    """Stands for the end of the process."""


def _task(*, die_at: int | None = None, rates: Mapping[str, float] | None = None) -> Task:
    generator = torch.Generator().manual_seed(0)
    inputs, wanted = torch.randn(40, 3, generator=generator), torch.randn(40, 1, generator=generator)
    layer = torch.nn.Linear(3, 1)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    steps = iter(range(10_000))

    def loss(rows: NDArray[np.int64], rng: np.random.Generator) -> Any:
        if next(steps) == die_at:
            raise _Killed
        noise = torch.from_numpy(rng.standard_normal((len(rows), 1)).astype(np.float32))
        return (layer(inputs[rows]) - wanted[rows] - noise).square().mean()

    return Task(
        title="toy",
        parameters=dict(layer.named_parameters()),
        lengths=list(range(40)),
        loss=loss,
        rates=rates or {},
        check=dict,
    )


def _run(task: Task, checkpoint: Path, **options: Any) -> Any:
    return train(task, _CONFIG, checkpoint, seed=1, log=lambda _: None, **options)


def test_a_killed_training_ends_with_the_same_loss_and_weights(tmp_path: Path) -> None:
    whole = _task()
    undisturbed = _run(whole, tmp_path / "whole.safetensors")

    with pytest.raises(_Killed):
        _run(_task(die_at=17), tmp_path / "cut.safetensors")
    resumed = _task()
    position = _run(resumed, tmp_path / "cut.safetensors")

    assert position.loss == pytest.approx(undisturbed.loss, rel=0.01)
    for name, value in whole.parameters.items():
        assert torch.allclose(value, resumed.parameters[name])


def test_parameters_learn_at_the_rate_of_their_part(tmp_path: Path) -> None:
    task = _task(rates={"bias": 0.0})

    _run(task, tmp_path / "c.safetensors")

    assert not task.parameters["bias"].any()
    assert task.parameters["weight"].any()


def test_a_killed_training_goes_on_at_the_rates_of_its_parts(tmp_path: Path) -> None:
    rates = {"bias": 10.0}
    whole, resumed = _task(rates=rates), _task(rates=rates)
    _run(whole, tmp_path / "whole.safetensors")

    with pytest.raises(_Killed):
        _run(_task(die_at=17, rates=rates), tmp_path / "cut.safetensors")
    _run(resumed, tmp_path / "cut.safetensors")

    for name, value in whole.parameters.items():
        assert torch.allclose(value, resumed.parameters[name])


def test_finish_trains_what_has_no_checkpoint_yet(tmp_path: Path) -> None:
    position = _run(_task(), tmp_path / "none.safetensors", finish=True)

    assert position.done
    assert (tmp_path / "none.safetensors").exists()


def test_finish_takes_the_last_checkpoint_as_the_end(tmp_path: Path) -> None:
    with pytest.raises(_Killed):
        _run(_task(die_at=5), tmp_path / "cut.safetensors")

    position = _run(_task(), tmp_path / "cut.safetensors", finish=True)

    assert position.batches == 5


def test_a_later_run_begins_with_the_weights_of_an_earlier_one(tmp_path: Path) -> None:
    earlier, later = _task(), _task()
    _run(earlier, tmp_path / "earlier.safetensors")

    load_weights(tmp_path / "earlier.safetensors", later.parameters)

    for name, value in earlier.parameters.items():
        assert torch.equal(value, later.parameters[name])


def test_a_training_ends_when_its_minutes_are_over(tmp_path: Path) -> None:
    ticks = iter(range(0, 100_000, 30))
    config = _CONFIG.model_copy(update={"max_minutes": 10.0, "checkpoint_minutes": 5.0})

    position = train(
        _task(),
        config,
        tmp_path / "c.safetensors",
        seed=1,
        log=lambda _: None,
        clock=lambda: float(next(ticks)),
    )

    assert position.done
    assert position.seen < 200
