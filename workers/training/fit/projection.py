"""Initialize the projector in closed form: ridge maps from the vector to embeddings of the words around it.

An AV whose soft tokens start near the true words learns in minutes what raw injection does not learn in
hours, as found for self-interpretation adapters (arXiv 2602.10352).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.nla import fidelity
from workers.nla.checkpoint.projector import Projector, centre
from workers.nla.checkpoint.text_model import first_blocks
from workers.training.config import Projection
from workers.training.data.dataset import Samples

Embed = Callable[[NDArray[np.int64]], NDArray[np.float32]]
"""Maps n token ids to the input of the model's first block, (n, d)."""
_RAW_LENGTH = 5.0
"""Norm of the soft token that holds the vector itself, in multiples of an embedding's norm."""


def fit_frame(samples: Samples) -> tuple[NDArray[np.float32], float]:
    """Return the mean direction (d,) and the standard deviation of the centred unit vectors' entries."""
    # float16 is the shipped precision, and training must use the shipped mean.
    mean = fidelity.mean_direction(samples.vectors).astype(np.float16).astype(np.float32)
    scale = float(centre(samples.vectors, mean, 1.0).std())
    return mean, scale


def fit_projector(
    samples: Samples,
    embed: Embed,
    mean: NDArray[np.float32],
    scale: float,
    config: Projection,
) -> Projector:
    """Fit the soft tokens: tokens before the read one, farthest first, then next token and vector."""
    centred = centre(samples.vectors, mean, scale)
    length = float(np.linalg.norm(embed(samples.tokens), axis=1).mean())
    before = [samples.context[:, -1 - back] for back in range(config.tokens_before, 0, -1)]
    design = np.concatenate([centred, np.ones((len(centred), 1), np.float32)], axis=1).astype(np.float64)
    gram = design.T @ design + config.ridge * np.eye(design.shape[1])
    maps = []
    for tokens in (*before, samples.next_tokens[:, 0]):
        solved = np.linalg.solve(gram, design.T @ embed(tokens))
        # Ridge shrinks its predictions, so rescale them to the norm of an embedding.
        maps.append(solved * (length / np.linalg.norm(design @ solved, axis=1).mean()))
    width = centred.shape[1]
    raw = np.concatenate([np.eye(width), np.zeros((1, width))])
    maps.append(raw * (_RAW_LENGTH * length / np.linalg.norm(centred, axis=1).mean()))
    full = np.concatenate(maps, axis=1).astype(np.float32)
    return Projector(np.ascontiguousarray(full[:-1].T), full[-1], mean, scale)


def load_embed(model: str) -> Embed:
    """Load the model's embeddings, including the family's scale (Gemma: sqrt(d))."""
    import torch
    import transformers

    loaded: Any = transformers.AutoModel.from_pretrained(
        model, dtype=torch.float32, **first_blocks(Path(model), 1)
    )
    table = loaded.get_input_embeddings()

    def embed(tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        with torch.inference_mode():
            rows: NDArray[np.float32] = table(torch.from_numpy(np.ascontiguousarray(tokens))).numpy()
        return rows

    return embed


def to_linear(projector: Projector) -> Any:
    """Return the projector as a trainable layer."""
    import torch

    layer = torch.nn.Linear(projector.weight.shape[1], projector.weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(projector.weight))
        layer.bias.copy_(torch.from_numpy(projector.bias))
    return layer


def from_linear(layer: Any, mean: NDArray[np.float32], scale: float) -> Projector:
    """Return a trained layer as a projector."""
    return Projector(
        layer.weight.detach().float().cpu().numpy(), layer.bias.detach().float().cpu().numpy(), mean, scale
    )
