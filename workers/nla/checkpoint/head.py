"""The AR's head: a square matrix that maps block K's output to the rebuilt vector."""

from pathlib import Path
from typing import Any

from workers.nla.errors import MetaError


def load_head(path: Path, d_model: int) -> Any:
    """Load the head's (d_model, d_model) weight in float32; MetaError on a broken file or another shape."""
    import safetensors
    import safetensors.torch

    try:
        tensors = safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise MetaError(f"{path}: not a safetensors file ({error}); copy it again") from error
    weight = tensors.get("weight")
    if weight is None or tuple(weight.shape) != (d_model, d_model):
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        raise MetaError(
            f"{path}: must hold one tensor 'weight' of ({d_model}, {d_model}), holds {found}; it belongs to"
            " another decoder"
        )
    return weight.float()
