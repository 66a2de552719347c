"""Training checkpoints in one safetensors file: weights, optimizer, random state and position."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(slots=True, kw_only=True)
class Position:
    """A training's progress."""

    batches: int = 0
    seen: int = 0
    minutes: float = 0.0
    loss: float = 0.0
    """Smoothed training loss."""
    done: bool = False
    history: list[dict[str, float]] = field(default_factory=list)


def save_checkpoint(path: Path, parameters: dict[str, Any], optimizer: Any, position: Position) -> None:
    """Write the file atomically, so that a kill leaves the previous checkpoint."""
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
    """Return the position in a checkpoint."""
    import safetensors

    with safetensors.safe_open(path, framework="pt") as file:
        return Position(**json.loads(file.metadata()["position"]))


def load_weights(path: Path, parameters: dict[str, Any]) -> None:
    """Copy only a checkpoint's weights into `parameters`, in place."""
    import safetensors
    import torch

    with safetensors.safe_open(path, framework="pt") as file, torch.no_grad():
        for name, value in parameters.items():
            value.copy_(file.get_tensor(f"weight.{name}"))


def load_checkpoint(path: Path, parameters: dict[str, Any], optimizer: Any) -> Position:
    """Restore weights, optimizer and random state, and return the position; without a file do nothing."""
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
                # The optimizer keeps its step count on the CPU.
                optimizer.state[value] = {
                    kind: saved if kind == "step" else saved.to(value.device)
                    for kind, saved in state.items()
                }
        torch.set_rng_state(file.get_tensor("random"))
    return read_position(path)
