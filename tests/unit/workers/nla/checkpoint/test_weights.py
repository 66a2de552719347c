import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from workers.nla.checkpoint.weights import read_layout
from workers.nla.errors import MetaError

TABLE = np.zeros((10, 4), np.float32)
NORM = np.ones(4, np.float32)


@pytest.mark.parametrize(
    ("table", "block", "prefix"),
    [
        ("model.embed_tokens.weight", "model.layers.{}.norm.weight", "model."),
        (
            "language_model.model.embed_tokens.weight",
            "language_model.model.layers.{}.norm.weight",
            "language_model.model.",
        ),
        ("transformer.wte.weight", "transformer.h.{}.ln_1.weight", "transformer."),
        ("wte.weight", "h.{}.ln_1.weight", ""),
    ],
)
def test_the_text_model_is_found_under_every_name(
    tmp_path: Path, table: str, block: str, prefix: str
) -> None:
    # A vision tower has blocks too, and more of them.
    others = {f"vision_tower.encoder.layers.{number}.norm.weight": NORM for number in range(9)}
    blocks = {block.format(number): NORM for number in (0, 1)}
    save_file({table: TABLE, **blocks, **others}, tmp_path / "model.safetensors")

    assert read_layout(tmp_path) == (prefix, 10, 4, frozenset({0, 1}))


def write_shards(folder: Path) -> dict[str, str]:
    files = {
        "model.embed_tokens.weight": "model-1.safetensors",
        "model.layers.0.norm.weight": "model-2.safetensors",
    }
    save_file({"model.embed_tokens.weight": TABLE}, folder / "model-1.safetensors")
    save_file({"model.layers.0.norm.weight": NORM}, folder / "model-2.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    return files


def test_sharded_weights_are_found_through_their_index(tmp_path: Path) -> None:
    write_shards(tmp_path)

    assert read_layout(tmp_path) == ("model.", 10, 4, frozenset({0}))


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    write_shards(tmp_path)
    (tmp_path / "model-2.safetensors").unlink()

    with pytest.raises(MetaError, match=r"weights: model-2.safetensors missing; download the rest"):
        read_layout(tmp_path)


@pytest.mark.parametrize("index", ["[", "[]", "{}", '{"weight_map": 3}'])
def test_a_broken_index_is_named(tmp_path: Path, index: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(index)

    with pytest.raises(MetaError, match=r"index.json: not an index of weights"):
        read_layout(tmp_path)


def test_weights_in_another_format_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").touch()

    with pytest.raises(MetaError, match=r"model.safetensors: missing; weights must be safetensors"):
        read_layout(tmp_path)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"not weights")

    with pytest.raises(MetaError, match=r"model.safetensors: not a safetensors file"):
        read_layout(tmp_path)


@pytest.mark.parametrize("names", [[], ["model.embed_tokens.weight", "other.embed_tokens.weight"]])
def test_anything_but_one_table_is_refused(tmp_path: Path, names: list[str]) -> None:
    save_file({"x": NORM, **dict.fromkeys(names, TABLE)}, tmp_path / "model.safetensors")

    with pytest.raises(MetaError, match="one token embedding table must be there, found "):
        read_layout(tmp_path)
