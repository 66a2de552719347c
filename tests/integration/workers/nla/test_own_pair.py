"""A random pair of our own format in the real engine: projector, read token, labels, candidates."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.support.nla import toy
from workers.nla import claims
from workers.nla.decoder import GivenFacts
from workers.nla.engine.nla_decoder import NlaDecoder
from workers.nla.engine.verbalizer import EngineSettings, prepare_environment

pytestmark = pytest.mark.vllm
NEW_TOKENS = 12
TOKENS = [500, 31854, 2]
DIRECTIONS = np.random.default_rng(3).standard_normal((3, toy.D_MODEL)).astype(np.float32) * 9
prepare_environment()


@pytest.fixture(scope="module")
def base(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.write_base(tmp_path_factory.mktemp("base"), model_dir)


@pytest.fixture(scope="module")
def own(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NlaDecoder]:
    """A random pair of our own format: projector, read token, labels; 3 candidates."""
    folder = toy.write_own_pair(tmp_path_factory.mktemp("own"), base)
    opened = NlaDecoder.open(
        folder, EngineSettings(max_new_tokens=NEW_TOKENS, candidates=3, products="float32")
    )
    yield opened
    opened.close()


def write_on(own: NlaDecoder, base: Path, row: int) -> str:
    """Return what Hugging Face writes on from the documented embeddings of our own format."""
    injector, tokenizer = own.verbalizer.injector, own.tokenizer
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    [labelled] = injector.label(DIRECTIONS[row : row + 1])
    assert labelled is not None
    before, behind = toy.OWN_AV_TEMPLATE.split("{injection_char}")
    between, after = behind.split("{token}")
    parts = [
        tokenizer.encode(text, add_special_tokens=False)
        for text in (before, between, after.format(labels=claims.first_sentence(labelled)))
    ]
    table = model.get_input_embeddings().weight.detach()
    soft = torch.from_numpy(injector.project(DIRECTIONS[row : row + 1])[0])
    inputs = torch.cat([table[parts[0]], soft, table[parts[1]], table[[TOKENS[row]]], table[parts[2]]])
    written: list[int] = []
    while len(written) < NEW_TOKENS:
        with torch.inference_mode():
            logits = model(inputs_embeds=torch.cat([inputs, table[written]])[None]).logits
        written.append(int(logits[0, -1].argmax()))
        if written[-1] == 0:
            return str(tokenizer.decode(written[:-1]))
    return str(tokenizer.decode(written))


def test_a_pair_with_all_stages_is_read_as_hugging_face_reads_it(own: NlaDecoder, base: Path) -> None:
    expected = [write_on(own, base, row) for row in range(3)]

    said = own.verbalizer.verbalize(DIRECTIONS, GivenFacts(TOKENS, ["decode"] * 3), 1)

    for [only], text in zip(said, expected, strict=True):
        assert only.labelled is not None
        assert only.text == f"{claims.first_sentence(only.labelled)}{claims.EXPECTS}{text}"
    assert len(set(expected)) == 3


def test_a_reading_of_all_stages_tells_its_parts(own: NlaDecoder) -> None:
    readings = own.read(DIRECTIONS, GivenFacts(TOKENS, ["prefill", "decode", "decode"]))

    assert [reading.position_class for reading in readings] == ["prompt", "answer", "template"]
    for reading in readings:
        assert reading.claims is not None
        assert reading.claims.register in toy.LABEL_NAMES["registers"]
        assert reading.candidates == 3
        assert reading.margin is not None
        assert reading.margin >= 0
        # A random model keeps no format, and an uncalibrated decoder trusts nobody.
        assert (reading.well_formed, reading.verified, reading.fve_beyond_token) == (False, False, None)


def test_a_token_that_the_model_does_not_have_is_refused_before_it_is_looked_up(own: NlaDecoder) -> None:
    with pytest.raises(ValueError, match=r"token_ids: rows \[1, 2\] are none of the model's 49152 tokens"):
        own.read(DIRECTIONS, GivenFacts([5, 49152, -1], ["decode"] * 3))


def test_the_reconstructor_reads_at_the_token_that_it_is_given(own: NlaDecoder, base: Path) -> None:
    text = 'Prose. Expects " a". Reads "it is'

    rebuilt = own.reconstructor.rebuild([text, text], [500, 501])

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    for token_id, vector in zip((500, 501), rebuilt, strict=True):
        ids = own.tokenizer.encode(f"<|im_start|>assistant\n{text}", add_special_tokens=False)
        with torch.inference_mode():
            states = model(torch.tensor([[*ids, token_id]]), output_hidden_states=True).hidden_states
        assert vector == pytest.approx(states[toy.LAYER + 1][0, -1].numpy(), abs=1e-4)
    table = model.get_input_embeddings().weight.detach().numpy()
    assert own.reconstructor.embed([500, 0]) == pytest.approx(table[[500, 0]])
