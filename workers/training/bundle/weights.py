"""Lossless compression of a model's weights for a bundle.

A float32 weight that was converted from a GGUF file is packed as that file's quantised bytes, if these
dequantise to exactly the same values. Every other weight is packed unchanged. Training elsewhere therefore
uses exactly the audited model.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.training.bundle.dequantise import FORMATS, dequantise
from workers.training.bundle.pieces import BundleError

FILE = "model.safetensors"
_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    **{f"attn_{part}": f"self_attn.{part}_proj" for part in "qkv"},
    "attn_output": "self_attn.o_proj",
}


def pack_weights(model: Path, target: Path, gguf_file: Path | None) -> int:
    """Pack the weights of a Hugging Face directory into `target`; return the number of quantised ones."""
    from safetensors import safe_open
    from safetensors.numpy import save_file

    if not (model / FILE).exists():
        raise BundleError(f"{model}: weights in one {FILE} are needed")
    config = json.loads((model / "config.json").read_text())
    sources = {} if gguf_file is None else _read_gguf(gguf_file, config)
    arrays, formats = {}, {}
    with safe_open(model / FILE, framework="numpy") as file:
        metadata = file.metadata()
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    for name, array in weights.items():
        arrays[name] = array
        for rows, kind in sources.get(name, ()):
            if np.array_equal(dequantise(rows, kind), array):
                arrays[name], formats[name] = rows, kind
    header = {"formats": formats, "metadata": metadata, "sha256": _digest(weights)}
    save_file(arrays, target, metadata={"bundle": json.dumps(header)})
    return len(formats)


def unpack_weights(source: Path, target: Path) -> None:
    """Restore the float32 weights; raises BundleError when their hash differs from the packed ones."""
    from safetensors import safe_open
    from safetensors.numpy import save_file

    with safe_open(source, framework="numpy") as file:
        header = json.loads(file.metadata()["bundle"])
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    for name, kind in header["formats"].items():
        arrays[name] = dequantise(arrays[name], kind)
    if _digest(arrays) != header["sha256"]:
        raise BundleError(f"{source}: the weights are not those of the audited model")
    save_file(arrays, target, metadata=header["metadata"])


def _digest(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return a hash of all names, dtypes, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _read_gguf(path: Path, config: Mapping[str, Any]) -> dict[str, list[tuple[NDArray[np.uint8], str]]]:
    """Return the possible quantised rows and formats of each weight, by its Hugging Face name."""
    import gguf

    weights = {}
    for tensor in gguf.GGUFReader(path).tensors:
        kind, name = tensor.tensor_type.name, _hugging_face_name(tensor.name)
        if kind in FORMATS and name is not None:
            rows = np.array(tensor.data)
            weights[name] = [(rows, kind), *((other, kind) for other in _unpaired(rows, name, config))]
    return weights


def _hugging_face_name(name: str) -> str | None:
    match = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.weight", name)
    if match is None or match[2] not in _NAMES:
        return None
    within = f"model.layers.{match[1]}." if match[1] is not None else ""
    return f"{within}{_NAMES[match[2]]}.weight"


def _unpaired(rows: NDArray[np.uint8], name: str, config: Mapping[str, Any]) -> Iterator[NDArray[np.uint8]]:
    """Undo GGUF's row permutation for rotary embeddings, which some families have.

    The permutation moves whole rows, so it works on quantised bytes.
    """
    counts = {"q_proj.weight": "num_attention_heads", "k_proj.weight": "num_key_value_heads"}
    for ending, heads in counts.items():
        if name.endswith(ending) and heads in config:
            yield rows.reshape(config[heads], -1, 2, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)
