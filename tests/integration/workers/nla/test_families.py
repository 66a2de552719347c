"""Pairs of every family in the real engine, against the official definitions written out in `reference`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from tests.support.nla import families, reference
from tests.support.nla.untrained import given
from workers.nla.engine.nla_decoder import NlaDecoder
from workers.nla.engine.verbalizer import CLOSE, EngineSettings, prepare_environment

pytestmark = pytest.mark.vllm
NEW_TOKENS = 12
SETTINGS = EngineSettings(max_new_tokens=NEW_TOKENS, candidates=1, products="float32")
"""Scores are compared to the last digits."""
VECTORS = np.random.default_rng(5).standard_normal((6, families.D_MODEL)).astype(np.float32) * 10
# Read by no other test: what one has read comes from the prefix cache.
UNREAD = np.random.default_rng(6).standard_normal((6, families.D_MODEL)).astype(np.float32) * 10
prepare_environment()


class Opened:
    """One family's decoder, and what it was made from."""

    def __init__(self, family: families.Family, folder: Path) -> None:
        self.model_type = family.name.partition("-")[0]
        self.folder = families.write_pair(family, folder)
        self.av_meta = families.read_meta(folder / "av")
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder / "av")
        ids = reference.prompt_ids(self.tokenizer, families.AV_TEMPLATE, family.injection_char)
        self.position = ids.index(self.av_meta["tokens"]["injection_token_id"])
        self.decoder = NlaDecoder.open(folder, SETTINGS)

    def embeddings(self, vector: np.ndarray) -> torch.Tensor:
        return reference.injected_embeddings(
            self.folder / "av",
            self.av_meta,
            self.tokenizer,
            vector,
            model_type=self.model_type,
        )


@pytest.fixture(scope="module", params=families.FAMILIES, ids=lambda family: family.name)
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    found = Opened(request.param, tmp_path_factory.mktemp(request.param.name))
    yield found
    found.decoder.close()


@contextmanager
def noted_inputs() -> Iterator[list[torch.Tensor]]:
    """Note what the first block of every pass computes on, (tokens, d_model)."""
    seen: list[torch.Tensor] = []

    def note(module: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        # vLLM's blocks take (positions, hidden states, residual); only the first has no residual yet.
        if type(module).__name__.endswith("DecoderLayer") and inputs[2] is None:
            seen.append(inputs[1].clone())

    hook = torch.nn.modules.module.register_module_forward_pre_hook(note)
    try:
        yield seen
    finally:
        hook.remove()


def test_the_engine_computes_on_the_documented_embeddings(opened: Opened) -> None:
    """Token rows behind the family's own scale, the vector as it is, at its place."""
    for vector in UNREAD:
        with noted_inputs() as seen:
            opened.decoder.verbalizer.verbalize(vector[None], given(1))

        # What stands before the vector is computed once and cached.
        expected, computed = opened.embeddings(vector), seen[0]
        assert len(computed) > len(expected) - opened.position
        assert (computed - expected[-len(computed) :]).abs().max() < 1e-4


def test_every_reading_is_what_the_model_writes_on_from_the_documented_embeddings(opened: Opened) -> None:
    expected = reference.verbalize(
        opened.folder / "av",
        [opened.embeddings(vector) for vector in VECTORS],
        opened.tokenizer,
        model_type=opened.model_type,
        new_tokens=NEW_TOKENS,
    )

    said = [only for [only] in opened.decoder.verbalizer.verbalize(VECTORS, given(len(VECTORS)))]

    assert [explanation.text for explanation in said] == [
        text.split(CLOSE)[0].replace("<explanation>", "").strip() for text in expected
    ]
    # Otherwise the comparison would not tell whether the vector went in at all.
    assert len({explanation.text for explanation in said}) > len(VECTORS) / 2


def test_every_reading_is_scored_as_documented(opened: Opened) -> None:
    readings = opened.decoder.read(VECTORS, given(len(VECTORS)))

    rebuilt = reference.reconstruct(
        opened.folder / "av",
        opened.folder / "ar" / "value_head.safetensors",
        opened.tokenizer,
        [families.AR_TEMPLATE.format(explanation=reading.text) for reading in readings],
        layer=families.LAYER,
    )
    for reading, row, vector in zip(readings, rebuilt, VECTORS, strict=True):
        mse, cosine = reference.score(row, vector, families.D_MODEL**0.5)
        assert reading.cosine == pytest.approx(cosine, abs=1e-4)
        # Uncalibrated, the baseline is 1.
        assert reading.fve == pytest.approx(1 - mse, abs=1e-4)


@pytest.mark.parametrize("prefix", ["language_model.model.", "model.language_model.", "model."])
def test_the_engine_finds_a_wrappers_text_weights_under_every_name(prefix: str) -> None:
    from workers.nla.engine.gemma3 import UnwrappedGemma3ForCausalLM

    mapper = UnwrappedGemma3ForCausalLM.hf_to_vllm_mapper

    assert (
        mapper.map_name(f"{prefix}layers.0.input_layernorm.weight")
        == "model.layers.0.input_layernorm.weight"
    )
    assert mapper.map_name("model.vision_tower.encoder.layers.0.norm.weight") is None
