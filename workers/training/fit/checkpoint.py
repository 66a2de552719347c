"""All state of a training in one safetensors file: weights, optimizer, random state, data position."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(slots=True, kw_only=True)
class Position:
    """Where a training stands."""

    batches: int = 0
    seen: int = 0
    minutes: float = 0.0
    loss: float = 0.0
    """Smoothed training loss."""
    done: bool = False
    history: list[dict[str, float]] = field(default_factory=list)


def save_checkpoint(path: Path, parameters: dict[str, Any], optimizer: Any, position: Position) -> None:
    """Write atomically: a kill leaves the checkpoint before."""
    import safetensors.torch
    import torch

    tensors = {f"weight.{name}": value.detach() for name, value in parameters.items()}
    for name, value in parameters.items():
        for key, state in optimizer.state.get(value, {}).items():
            tensors[f"{key}.{name}"] = state
    tensors["random"] = torch.get_rng_state()
    unfinished = path.with_suffix(".unfinished")
    safetensors.torch.save_file(tensors, unfinished, metadata={"position": json.dumps(asdict(position))})
    unfinished.replace(path)


def read_position(path: Path) -> Position:
    """Return where a saved training stood."""
    import safetensors

    with safetensors.safe_open(path, framework="pt") as file:
        return Position(**json.loads(file.metadata()["position"]))


def load_weights(path: Path, parameters: dict[str, Any]) -> None:
    """Copy a checkpoint's weights in place, and nothing else of it."""
    import safetensors
    import torch

    with safetensors.safe_open(path, framework="pt") as file, torch.no_grad():
        for name, value in parameters.items():
            value.copy_(file.get_tensor(f"weight.{name}"))


def load_checkpoint(path: Path, parameters: dict[str, Any], optimizer: Any) -> Position:
    """Restore everything in place and return where the training stood; a fresh start without a file."""
    if not path.exists():
        return Position()
    import safetensors
    import torch

    load_weights(path, parameters)
    with safetensors.safe_open(path, framework="pt") as file:
        keys = set(file.keys())
        for name, value in parameters.items():
            kinds = ("step", "exp_avg", "exp_avg_sq")
            state = {kind: file.get_tensor(f"{kind}.{name}") for kind in kinds if f"{kind}.{name}" in keys}
            if state:
                # The step count stays where the optimizer keeps it: on the CPU.
                optimizer.state[value] = {
                    kind: saved if kind == "step" else saved.to(value.device)
                    for kind, saved in state.items()
                }
        torch.set_rng_state(file.get_tensor("random"))
    return read_position(path)
