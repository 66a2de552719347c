"""Names and shapes of a checkpoint's weights, read from the file headers.

Loaders initialize missing tensors randomly and at most log a warning, so a checkpoint with wrong names or
sizes is refused before loading.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from workers.nla.errors import MetaError

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight")
_BLOCK = re.compile(r"(?:layers|h|blocks)\.(\d+)\.")


class Layout(NamedTuple):
    """The text model inside a checkpoint's weights."""

    prefix: str
    """Prefix of the tensor names: "model.", or "language_model.model." in a multimodal wrapper."""
    vocabulary: int
    """Number of rows of the embedding table."""
    d_model: int
    blocks: frozenset[int]
    """Indices of the blocks that have any weight."""


def read_layout(folder: Path) -> Layout:
    """Read the headers of a checkpoint's safetensors; MetaError names the file and the fix."""
    files = _list_tensors(folder)
    embeddings = [name for name in files if name.endswith(_EMBEDDINGS)]
    if len(embeddings) != 1:
        raise MetaError(
            f"{folder}: weights: one token embedding table must be there, found {embeddings or 'none'};"
            " save the whole model again with save_pretrained"
        )
    prefix = embeddings[0].rpartition(_stem(embeddings[0]))[0]
    vocabulary, d_model = _read_shape(files[embeddings[0]], embeddings[0])
    return Layout(prefix, vocabulary, d_model, frozenset(_block_numbers(files, prefix)))


def _stem(name: str) -> str:
    return next(stem for stem in _EMBEDDINGS if name.endswith(stem))


def _block_numbers(names: Iterable[str], prefix: str) -> Iterable[int]:
    for name in names:
        if name.startswith(prefix) and (match := _BLOCK.match(name, len(prefix))):
            yield int(match.group(1))


def _list_tensors(folder: Path) -> Mapping[str, Path]:
    """Return the file of every tensor, by tensor name."""
    if (folder / _INDEX).exists():
        try:
            names = json.loads((folder / _INDEX).read_text(encoding="utf-8"))["weight_map"]
            files = {str(name): folder / file for name, file in names.items()}
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise MetaError(
                f"{folder / _INDEX}: not an index of weights ({error!r}); copy it again"
            ) from error
        missing = sorted({file.name for file in files.values() if not file.exists()})
        if missing:
            raise MetaError(f"{folder}: weights: {', '.join(missing)} missing; download the rest")
        return files
    path = folder / _SINGLE
    if not path.exists():
        raise MetaError(f"{path}: missing; weights must be safetensors, whole or with {_INDEX}")
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return dict.fromkeys(file.keys(), path)
    except SafetensorError as error:
        raise MetaError(f"{path}: not a safetensors file ({error}); copy it again") from error


def _read_shape(path: Path, name: str) -> tuple[int, int]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            rows, columns = file.get_slice(name).get_shape()
    except (SafetensorError, ValueError) as error:
        raise MetaError(f"{path}: {name}: cannot be read ({error}); copy the file again") from error
    return int(rows), int(columns)
