"""The verbalizer in training: vector to text."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.support.training import in_every_family
from workers.training.config import Training
from workers.training.data.targets import AvExample, ReadingWriter
from workers.training.fit import precision
from workers.training.fit import verbalizer as training_verbalizer
from workers.training.fit.verbalizer import Verbalizer

pytestmark = in_every_family
WIDTH, ROWS = 32, 3
CONFIG = Training(rank=4, alpha=8, learning_rate=1e-3, max_examples=8)


@pytest.fixture
def verbalizer(toy_model: Path, toy_writer: ReadingWriter, monkeypatch: pytest.MonkeyPatch) -> Verbalizer:
    """In float32, so that results can be compared, and with adapters that do something."""
    monkeypatch.setattr(precision, "autocast", nullcontext)
    torch.manual_seed(0)
    av = Verbalizer(str(toy_model), toy_writer, CONFIG, torch.nn.Linear(WIDTH, ROWS * WIDTH))
    with torch.no_grad():
        for name, value in av.parameters().items():
            if "lora_B" in name:
                value.normal_(std=0.3)
    return av


def vectors(count: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((count, WIDTH)).astype(np.float32)


@pytest.fixture
def examples(toy_writer: ReadingWriter) -> list[AvExample]:
    sentences = ("An answer.", "A request about sums (arithmetic), touching on fraud.", "Code.")
    return [
        toy_writer.av_example(sentence, toy_writer.encode("What is 1 plus 2")[: 3 + place], 40)
        for place, sentence in enumerate(sentences)
    ]


def test_several_prompts_are_written_as_each_would_be_alone(
    verbalizer: Verbalizer, examples: list[AvExample], toy_writer: ReadingWriter
) -> None:
    prompts = [one.prompt for one in examples]
    centred = vectors(3)
    assert len({len(prompt) for prompt in prompts}) > 1

    together = verbalizer.write(prompts, centred, max_new_tokens=8, temperature=0.0)

    for row, prompt in enumerate(prompts):
        alone = verbalizer.write([prompt], centred[row : row + 1], max_new_tokens=8, temperature=0.0)
        assert toy_writer.cut(together[row]) == toy_writer.cut(alone[0])


def test_merged_adapters_write_the_same(
    verbalizer: Verbalizer, examples: list[AvExample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_verbalizer, "is_native", lambda _: False)
    prompts, before = [one.prompt for one in examples], verbalizer.parameters()
    apart = verbalizer.write(prompts, vectors(3), max_new_tokens=8, temperature=0.0)

    with verbalizer.merged():
        merged = verbalizer.write(prompts, vectors(3), max_new_tokens=8, temperature=0.0)
        with torch.no_grad():
            next(iter(before.values())).zero_()
        assert verbalizer.write(prompts, vectors(3), max_new_tokens=8, temperature=0.0) == merged

    assert merged == apart
    assert list(verbalizer.parameters()) == list(before)


def test_what_is_written_follows_from_the_vector(verbalizer: Verbalizer, examples: list[AvExample]) -> None:
    prompts = [examples[0].prompt] * 6

    written = verbalizer.write(prompts, vectors(6) * 30, max_new_tokens=8, temperature=0.0)

    assert len({tuple(answer) for answer in written}) > 1


def test_every_token_can_be_sampled(verbalizer: Verbalizer, examples: list[AvExample]) -> None:
    prompts = [examples[0].prompt] * 200
    same = np.repeat(vectors(1), 200, axis=0)

    written = verbalizer.write(prompts, same, max_new_tokens=1, temperature=1000.0)

    assert len({answer[0] for answer in written}) > 60


def test_losses_are_those_of_a_plain_forward_pass(
    verbalizer: Verbalizer, examples: list[AvExample], toy_writer: ReadingWriter
) -> None:
    centred = vectors(3)
    model = verbalizer.peft.get_base_model()
    embed = model.get_input_embeddings()

    found = verbalizer.token_losses(examples, centred)

    expected, hits = [], []
    for example, vector in zip(examples, centred, strict=True):
        soft = verbalizer.projector(torch.from_numpy(vector)).view(ROWS, WIDTH)
        before, behind = (
            embed(torch.tensor(ids)) for ids in (toy_writer.before, [*example.prompt, *example.answer])
        )
        logits = model(inputs_embeds=torch.cat([before, soft, behind])[None]).logits[0]
        wanted = torch.tensor(example.answer)
        predicting = logits[-len(wanted) - 1 : -1]
        expected.append(torch.nn.functional.cross_entropy(predicting, wanted, reduction="none"))
        hits.append(predicting.argmax(dim=-1) == wanted)
    assert torch.allclose(found.losses, torch.cat(expected), atol=1e-4)
    assert found.hits.tolist() == torch.cat(hits).tolist()


def test_a_replaced_word_is_still_the_one_that_must_be_said(
    verbalizer: Verbalizer, examples: list[AvExample]
) -> None:
    example, centred = examples[0], vectors(1)
    place = example.tail.start
    seen = [*example.answer[:place], 99, *example.answer[place + 1 :]]

    true, misled = (
        verbalizer.token_losses([example], centred, shown).losses.tolist() for shown in (None, [seen])
    )

    assert misled[: place + 1] == pytest.approx(true[: place + 1], abs=1e-4)
    assert misled[place + 1 :] != pytest.approx(true[place + 1 :], abs=1e-4)


def test_the_loss_weighs_every_token(verbalizer: Verbalizer, examples: list[AvExample]) -> None:
    centred = vectors(3)
    losses = verbalizer.token_losses(examples, centred).losses.detach().numpy()
    weights = np.concatenate([one.weights for one in examples])

    loss = verbalizer.loss(examples, centred, [one.answer for one in examples])

    assert loss.item() == pytest.approx(float((losses * weights).sum() / weights.sum()), rel=1e-4)


def test_adapters_and_projector_are_trained_and_nothing_else(
    verbalizer: Verbalizer, examples: list[AvExample]
) -> None:
    verbalizer.loss(examples, vectors(3), [one.answer for one in examples]).backward()

    names = set(verbalizer.parameters())
    assert {"projector.weight", "projector.bias"} < names
    assert all("lora_" in name or name.startswith("projector.") for name in names)
    assert all(value.grad is not None for value in verbalizer.parameters().values())
