"""The engines against Hugging Face: nothing here depends on what a decoder has learned."""

import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.support.nla import toy
from tests.support.nla.untrained import NEW_TOKENS, SCALE, TEMPLATE, given
from workers.nla.decoder import Decoder
from workers.nla.engine.nla_decoder import NlaDecoder
from workers.nla.engine.verbalizer import CLOSE
from workers.reread.again import find_decoder, read_again
from workers.reread.compare import DRAWN_BY, Recorded
from workers.reread.found import Found

pytestmark = pytest.mark.vllm


@pytest.fixture(scope="module")
def tokenizer(model_dir: Path) -> Any:
    return AutoTokenizer.from_pretrained(model_dir)


@pytest.fixture(scope="module")
def model(model_dir: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def vectors(model: Any, tokenizer: Any) -> NDArray[np.float32]:
    """Embeddings of words, and outputs of block 20 in two sentences, past the first tokens."""
    words = [tokenizer.encode(word)[0] for word in (" dogs", " Paris", " snow", " money")]
    rows = list(model.get_input_embeddings().weight[words].detach())
    for text in ("The cat sat on the mat and purred.", "def add(a, b):\n    return a + b"):
        with torch.inference_mode():
            states = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states
        rows.append(states[21][0, -1])
    found: NDArray[np.float32] = torch.stack(rows).numpy()
    return found


def greedy(model: Any, tokenizer: Any, vector: NDArray[np.float32]) -> str:
    """Return what Hugging Face writes with the vector in the place of the injection token."""
    content = TEMPLATE.format(injection_char="§")
    turn = [{"role": "user", "content": content}]
    ids = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=False)
    embeddings = model.get_input_embeddings()(torch.tensor([ids])).detach().clone()
    row = torch.from_numpy(vector)
    embeddings[0, ids.index(31854)] = row / row.norm() * SCALE
    output = model.generate(
        inputs_embeds=embeddings,
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        do_sample=False,
        max_new_tokens=NEW_TOKENS,
        pad_token_id=2,
    )
    return str(tokenizer.decode(output[0], skip_special_tokens=True))


def test_every_vector_is_read_as_hugging_face_reads_it(
    decoder: NlaDecoder, model: Any, tokenizer: Any, vectors: NDArray[np.float32]
) -> None:
    expected = [greedy(model, tokenizer, vector) for vector in vectors]

    said = [only for [only] in decoder.verbalizer.verbalize(vectors, given(len(vectors)))]

    assert [explanation.text for explanation in said] == [
        text.split(CLOSE)[0].replace("<explanation>", "").strip() for text in expected
    ]
    # Otherwise the comparison would not tell whether the vector went in at all.
    assert len({explanation.text for explanation in said}) > len(vectors) / 2


@pytest.mark.parametrize("n", [1, 3])
def test_the_same_vector_gives_the_same_texts_alone_in_a_batch_and_at_any_length(
    decoder: NlaDecoder, vectors: NDArray[np.float32], n: int
) -> None:
    batch = decoder.verbalizer.verbalize(vectors, given(len(vectors)), n)

    assert {len(candidates) for candidates in batch} == {n}
    assert decoder.verbalizer.verbalize(vectors[2:3], given(1), n) == [batch[2]]
    assert decoder.verbalizer.verbalize(vectors[::-1].copy(), given(len(vectors)), n) == batch[::-1]
    assert decoder.verbalizer.verbalize(vectors[2:3] * 7, given(1), n) == [batch[2]]


def test_the_untrained_reconstructor_is_the_output_of_block_k_at_the_last_token(
    decoder: NlaDecoder, model: Any, tokenizer: Any
) -> None:
    texts = ["A cat.", "", 'Last token " the"; next likely " cat" and some more words', "A cat."]

    rebuilt = decoder.reconstructor.rebuild(texts, [0] * len(texts))

    for text, vector in zip(texts, rebuilt, strict=True):
        ids = tokenizer(toy.AR_TEMPLATE.format(explanation=text), return_tensors="pt")
        with torch.inference_mode():
            states = model(**ids, output_hidden_states=True).hidden_states
        cosines = {
            layer: float(torch.cosine_similarity(states[layer][0, -1], torch.from_numpy(vector), dim=0))
            for layer in (20, 21, 22)
        }
        assert cosines[21] > 0.9999, text
        assert max(cosines[20], cosines[22]) < 0.9999, text


def test_an_uncalibrated_decoder_says_so_and_verifies_nothing(
    decoder: NlaDecoder, vectors: NDArray[np.float32]
) -> None:
    readings = decoder.read(vectors[:2], given(2))

    assert not decoder.identity.is_calibrated
    assert (decoder.identity.model, decoder.identity.layer) == ("toys/Toy-Instruct", 20)
    assert [reading.verified for reading in readings] == [False, False]
    assert all(-1 <= reading.cosine <= 1 and reading.fve <= 1 for reading in readings)
    assert decoder.token_text(31854) == "§"


def test_vectors_that_cannot_be_read_are_refused_and_the_engine_goes_on(
    decoder: NlaDecoder, vectors: NDArray[np.float32]
) -> None:
    with pytest.raises(ValueError, match=r"vectors: expected \(n, 576\)"):
        decoder.read(np.ones((2, 64), np.float32), given(2))
    with pytest.raises(ValueError, match=r"rows \[1\] are zero or not finite"):
        decoder.read(np.stack([vectors[0], np.zeros(576, np.float32)]), given(2))

    with pytest.raises(ValueError, match=r"token_ids: 1 for 2 vectors"):
        decoder.read(vectors[:2], given(1))

    assert decoder.read(np.empty((0, 576), np.float32), given(0)) == []
    assert len(decoder.read(vectors[:1], given(1))) == 1


def test_what_was_read_in_a_batch_is_read_again_alone_by_the_decoder_of_then(
    decoder: NlaDecoder, untrained_pair: Path, vectors: NDArray[np.float32]
) -> None:
    facts, identity = given(len(vectors)), decoder.identity
    readings = decoder.read(vectors, facts)
    found = [
        Found(
            Recorded(
                explanation_id=uuid.uuid4(),
                text=reading.text,
                cosine=reading.cosine,
                fve=reading.fve,
                fve_baseline=identity.fve_baseline,
                candidates=reading.candidates,
                decoder_digest=identity.digest,
                engine=identity.engine,
            ),
            vector,
            token_id,
            phase,
        )
        for reading, vector, token_id, phase in zip(readings, vectors, *facts, strict=True)
    ]

    def opened(digest: str, candidates: int) -> Decoder:
        assert find_decoder(untrained_pair, digest, candidates=candidates) == untrained_pair
        return Kept(decoder)

    again = read_again(found, opened, batch=1)

    assert {one.status for one in again.outcomes} == {"identical"}, [one.why for one in again.outcomes]
    assert again.changed == {}
    assert {*DRAWN_BY, "vllm", "dtype", "device", "products"} == identity.engine.keys()


class Kept:
    """A decoder that stays open for the other tests."""

    def __init__(self, decoder: NlaDecoder) -> None:
        self.identity, self.read, self.token_text = decoder.identity, decoder.read, decoder.token_text

    def close(self) -> None:
        """Leave it open."""
