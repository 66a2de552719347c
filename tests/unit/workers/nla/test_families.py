"""Prompts, vectors and figures of tiny pairs, against the official definitions in `reference`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from tests.support.nla import families, reference
from workers.nla import fidelity
from workers.nla.checkpoint.pair import load_pair
from workers.nla.checkpoint.text_model import load_blocks
from workers.nla.engine.precision import ProductType
from workers.nla.engine.prompt import InjectionPrompt
from workers.nla.engine.reconstructor import Reconstructor
from workers.nla.errors import MetaError

TEXTS = ["A cat.", "", 'It ends in a quote: "so be it"', "two\n\nparagraphs, " * 9]
NO_TOKENS = [0] * len(TEXTS)


@pytest.fixture(scope="module", params=families.FAMILIES, ids=lambda family: family.name)
def pair_dir(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return families.write_pair(request.param, tmp_path_factory.mktemp(request.param.name))


def open_reconstructor(pair_dir: Path, *, products: ProductType = "float32") -> Reconstructor:
    pair = load_pair(pair_dir / "av", pair_dir / "ar")
    tokenizer = AutoTokenizer.from_pretrained(pair_dir / "ar")
    return Reconstructor(pair_dir / "ar", pair.ar.meta, tokenizer, products=products)


def rebuild_by_definition(pair_dir: Path) -> np.ndarray:
    return reference.reconstruct(
        pair_dir / "av",
        pair_dir / "ar" / "value_head.safetensors",
        AutoTokenizer.from_pretrained(pair_dir / "ar"),
        [families.AR_TEMPLATE.format(explanation=text) for text in TEXTS],
        layer=families.LAYER,
    )


def test_the_verbalizers_prompt_is_the_documented_one(pair_dir: Path) -> None:
    pair = load_pair(pair_dir / "av", pair_dir / "ar")
    tokenizer: Any = AutoTokenizer.from_pretrained(pair_dir / "av")
    char = pair.av.meta.injection.char

    prompt = InjectionPrompt(pair.av.meta, tokenizer).build(0, "")

    assert list(prompt.ids) == reference.prompt_ids(tokenizer, families.AV_TEMPLATE, char)
    assert prompt.ids.count(tokenizer.bos_token_id) == (tokenizer.bos_token_id is not None)
    assert tokenizer.decode(prompt.ids[prompt.position]) == char


def test_rebuilt_vectors_are_the_documented_ones(pair_dir: Path) -> None:
    expected = rebuild_by_definition(pair_dir)

    rebuilt = open_reconstructor(pair_dir).rebuild(TEXTS, NO_TOKENS)

    assert np.abs(rebuilt - expected).max() < 1e-4
    # Otherwise any vector would do.
    assert fidelity.cosine(expected[:-1], expected[1:]).max() < 0.95


def test_products_in_bfloat16_rebuild_nearly_the_same_vectors(pair_dir: Path) -> None:
    exact = open_reconstructor(pair_dir).rebuild(TEXTS, NO_TOKENS)

    rebuilt = open_reconstructor(pair_dir, products="bfloat16").rebuild(TEXTS, NO_TOKENS)

    assert rebuilt.dtype == np.float32
    assert np.abs(rebuilt - exact).max() > 0
    assert fidelity.cosine(exact, rebuilt).min() > 0.99


def test_cosine_mse_and_fve_are_the_documented_ones(pair_dir: Path) -> None:
    rng = np.random.default_rng(1)
    vectors = (rng.standard_normal((len(TEXTS), families.D_MODEL)) * 50 + 20).astype(np.float32)
    pair = load_pair(pair_dir / "av", pair_dir / "ar")
    scale = pair.ar.meta.mse_scale
    assert scale is not None
    assert scale == pytest.approx(families.D_MODEL**0.5)
    documented = [
        reference.score(*sides, scale)
        for sides in zip(rebuild_by_definition(pair_dir), vectors, strict=True)
    ]
    variance = reference.variance(vectors, scale)

    rebuilt = open_reconstructor(pair_dir).rebuild(TEXTS, NO_TOKENS)

    baseline = fidelity.fve_baseline(vectors)
    assert fidelity.unit_mse(vectors, rebuilt) == pytest.approx([mse for mse, _ in documented], abs=1e-4)
    assert fidelity.cosine(vectors, rebuilt) == pytest.approx(
        [cosine for _, cosine in documented], abs=1e-4
    )
    assert baseline == pytest.approx(variance, abs=1e-4)
    assert fidelity.fve(vectors, rebuilt, baseline=baseline).mean() == pytest.approx(
        1 - np.mean([mse for mse, _ in documented]) / variance, abs=1e-4
    )


def rename_weights(folder: Path, old: str, new: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    renamed = {
        new + name.removeprefix(old) if name.startswith(old) else name: tensors[name] for name in tensors
    }
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("prefix", ["model.language_model.", "model."])
def test_a_wrappers_text_weights_are_found_under_every_name(tmp_path: Path, prefix: str) -> None:
    pair_dir = families.write_pair(families.GEMMA3_WRAPPED, tmp_path)
    expected = rebuild_by_definition(pair_dir)

    rename_weights(pair_dir / "ar", "language_model.model.", prefix)

    assert np.abs(open_reconstructor(pair_dir).rebuild(TEXTS, NO_TOKENS) - expected).max() < 1e-4


def test_weights_that_would_be_random_are_refused(tmp_path: Path) -> None:
    """The trainer once wrote names that the loader did not know: every weight was random, in silence."""
    pair_dir = families.write_pair(families.QWEN2, tmp_path)
    rename_weights(pair_dir / "ar", "model.layers.1.mlp.", "model.layers.1.other.")

    with pytest.raises(
        MetaError, match=r"weights: 3 tensors are missing .* 'layers.1.mlp.down_proj.weight'"
    ):
        load_blocks(pair_dir / "ar")


def test_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    pair_dir = families.write_pair(families.LLAMA, tmp_path)
    config = json.loads((pair_dir / "ar" / "config.json").read_text())
    (pair_dir / "ar" / "config.json").write_text(json.dumps({**config, "intermediate_size": 128}))

    with pytest.raises(MetaError, match=r"weights: .* 'layers.0.mlp.down_proj.weight'"):
        load_blocks(pair_dir / "ar")
