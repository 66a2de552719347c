"""Read the activations of bench-anomaly's requests with the audited model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

_TOGETHER = 10


class Traffic(NamedTuple):
    """Activations of requests; arrays have one entry a row."""

    vectors: NDArray[np.float32]
    """(n, d_model)."""
    documents: NDArray[np.int64]
    """Number of the row's request, (n,)."""
    positions: NDArray[np.int64]
    tokens: NDArray[np.int64]
    phases: NDArray[np.uint8]
    """0 where the client or the template wrote the token, 1 where the model did."""

    def take(self, rows: NDArray[Any]) -> Self:
        """Return the chosen rows."""
        return type(self)(*(array[rows] for array in self))


def load(path: Path) -> Traffic:
    """Read the columns of a safetensors file: one that `save` wrote, or a training run's token vectors."""
    from safetensors.numpy import load_file

    arrays = load_file(path)
    return Traffic(*(arrays[name] for name in Traffic._fields))


def save(traffic: Traffic, path: Path) -> None:
    """Write the file; a run that ends early leaves none."""
    from safetensors.numpy import save_file

    unfinished = path.with_suffix(".unfinished")
    save_file({name: np.ascontiguousarray(array) for name, array in traffic._asdict().items()}, unfinished)
    unfinished.replace(path)


def join(parts: Sequence[Traffic]) -> Traffic:
    """Return all rows; requests are numbered anew, so that those of different parts stay distinct."""
    numbered, first = [], 0
    for part in parts:
        names, numbers = np.unique(part.documents, return_inverse=True)
        numbered.append(part._replace(documents=numbers + first))
        first += len(names)
    return Traffic(*(np.concatenate(column) for column in zip(*numbered, strict=True)))


class PromptReader:
    """The audited model up to the block that is read; prompts are computed as a server prefills them."""

    def __init__(self, model: Path, *, layer: int, template_tokens: int) -> None:
        """Load it in float32; the first ``template_tokens`` positions, which all share, are left out."""
        import torch
        import transformers

        self._torch = torch
        loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        self._model = loaded.get_decoder()
        self._model.layers = self._model.layers[: layer + 1]
        self._kept: list[Any] = []
        self._model.layers[layer].register_forward_hook(
            lambda _block, _inputs, output: self._kept.append(output)
        )
        self._first = template_tokens

    def read(self, prompts: Sequence[Sequence[int]]) -> Traffic:
        """Return the rows of the prompts, in order of their lengths."""
        torch = self._torch
        ordered = sorted(prompts, key=len)
        parts = []
        for start in range(0, len(ordered), _TOGETHER):
            portion = ordered[start : start + _TOGETHER]
            self._kept.clear()
            # Padding on the right comes after every read position, where causal attention does not look.
            rows = [torch.tensor(list(prompt)) for prompt in portion]
            with torch.inference_mode():
                self._model(torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), use_cache=False)
            states = self._kept[0][0] if isinstance(self._kept[0], tuple) else self._kept[0]
            parts += [self._rows(states[row].numpy(), prompt) for row, prompt in enumerate(portion)]
        return join(parts)

    def _rows(self, states: NDArray[np.float32], prompt: Sequence[int]) -> Traffic:
        places = np.arange(self._first, len(prompt))
        return Traffic(
            states[places],
            np.zeros(len(places), np.int64),
            places,
            np.array(prompt, np.int64)[places],
            np.zeros(len(places), np.uint8),
        )
