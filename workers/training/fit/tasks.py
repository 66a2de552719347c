"""The four trainings as tasks of the loop: their examples, losses and checks."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.nla import fidelity
from workers.training.config import Adaptation, Denoising, Winners
from workers.training.data.material import Material
from workers.training.data.targets import AvExample, ReadingWriter, damage_far
from workers.training.fit.loop import Task
from workers.training.fit.reconstructor import Reconstructor
from workers.training.fit.verbalizer import Verbalizer
from workers.training.measure.readings import Candidates

CHECKED = 96
"""Held-out rows for the figures at every checkpoint: enough to see a stall, few enough to be cheap."""
_BATCH = 32
_WRONG_NEXT = 0.15
"""Share of damaged texts that also expect a wrong token."""


def true_sequences(writer: ReadingWriter, material: Material) -> list[list[int]]:
    """Return the AR's prompts of the true readings."""
    return [true_sequence(writer, material, row) for row in range(len(material.sentences))]


def reconstructor_task(
    ar: Reconstructor,
    writer: ReadingWriter,
    train: Material,
    held_out: Material,
    config: Denoising,
    *,
    baseline: float,
) -> Task:
    """Train the AR on true and damaged readings; check the FVE of true, damaged and shuffled pairs."""
    vocabulary = train.context[:, -1]
    chosen = held_out.take(spread(len(held_out.vectors), CHECKED))
    true = true_sequences(writer, chosen)
    damaged = [
        _damaged(writer, chosen, row, vocabulary, config.damage, np.random.default_rng(row))
        for row in range(len(true))
    ]

    def loss(rows: NDArray[np.int64], rng: np.random.Generator) -> object:
        sequences = [
            _damaged(writer, train, row, vocabulary, config.damage, rng)
            if rng.random() < config.damaged_share
            else _damaged(writer, train, row, vocabulary, 0.0, rng)
            for row in rows.tolist()
        ]
        return ar.loss(sequences, train.vectors[rows])

    def check() -> dict[str, float]:
        rebuilt = ar.rebuild(true)
        predictions = {
            "fve": rebuilt,
            "damaged_fve": ar.rebuild(damaged),
            "shuffled_fve": np.roll(rebuilt, len(true) // 2, axis=0),
        }
        return {
            name: float(fidelity.fve(chosen.vectors, vectors, baseline=baseline).mean())
            for name, vectors in predictions.items()
        }

    return Task(
        title="AR",
        parameters=ar.parameters(),
        lengths=[len(sentence) for sentence in train.sentences],
        loss=loss,
        check=check,
    )


def verbalizer_task(
    av: Verbalizer,
    writer: ReadingWriter,
    train: Material,
    held_out: Material,
    config: Denoising,
    *,
    projector_rate: float,
) -> Task:
    """Train the AV on true readings; check quoted words, next token and the gap to shuffled vectors."""
    examples = av_examples(writer, train)
    vocabulary = train.context[:, -1]
    chosen = held_out.take(spread(len(held_out.vectors), CHECKED))
    checked = av_examples(writer, chosen)

    def loss(rows: NDArray[np.int64], rng: np.random.Generator) -> object:
        batch = [examples[row] for row in rows]
        damage = config.damage if rng.random() < config.damaged_share else 0.0
        seen = [_forgetful(one, vocabulary, damage, rng) for one in batch]
        return av.loss(batch, train.centred[rows], seen)

    def check() -> dict[str, float]:
        real = teacher_forced(av, checked, chosen.centred)
        shuffled = teacher_forced(av, checked, np.roll(chosen.centred, len(checked) // 2, axis=0))
        return {
            **{name: float(values.mean()) for name, values in real._asdict().items()},
            "gap": float((shuffled.loss - real.loss).mean()),
        }

    return Task(
        title="AV",
        parameters=av.parameters(),
        lengths=[len(example.prompt) + len(example.answer) for example in examples],
        loss=loss,
        rates={"projector": projector_rate},
        check=check,
    )


def adaptation_task(  # noqa: PLR0917  # the columns of one table
    ar: Reconstructor,
    writer: ReadingWriter,
    sequences: Sequence[list[int]],
    vectors: NDArray[np.float32],
    material: Material,
    config: Adaptation,
) -> Task:
    """Train the AR on the AV's own readings, mixed with true readings of random rows.

    `sequences` holds the same number of readings for every row of `vectors` (n, d), grouped by row.
    """
    each = len(sequences) // len(vectors)
    held = spread(len(sequences), CHECKED)

    def loss(rows: NDArray[np.int64], rng: np.random.Generator) -> object:
        texts = [sequences[row] for row in rows]
        targets = vectors[rows // each].copy()
        for place in np.flatnonzero(rng.random(len(rows)) < config.true_share):
            other = int(rng.integers(len(material.sentences)))
            texts[place] = true_sequence(writer, material, other)
            targets[place] = material.vectors[other]
        return ar.loss(texts, targets)

    def check() -> dict[str, float]:
        rebuilt = ar.rebuild([sequences[row] for row in held])
        return {"cosine": float(fidelity.cosine(vectors[held // each], rebuilt).mean())}

    return Task(
        title="AR on readings",
        parameters=ar.parameters(),
        lengths=[len(sequence) for sequence in sequences],
        loss=loss,
        check=check,
    )


def winners_task(  # noqa: PLR0917  # the columns of one table
    av: Verbalizer,
    writer: ReadingWriter,
    material: Material,
    rows: NDArray[np.int64],
    readings: Sequence[Candidates],
    cosines: NDArray[np.float32],
    config: Winners,
) -> Task:
    """Train the AV on its best readings of `rows`, with the true next token, and on true readings.

    `cosines` is (rows, candidates).
    """
    won: list[tuple[int, AvExample]] = []
    for row, candidates, scores in zip(rows.tolist(), readings, cosines, strict=True):
        example = winner(writer, material, row, candidates.answers[int(scores.argmax())])
        if example is not None:
            won.append((row, example))
    # If no reading keeps the format, true readings take their place.
    pairs = won or [(row, true_example(writer, material, row)) for row in rows.tolist()]

    def loss(picked: NDArray[np.int64], rng: np.random.Generator) -> object:
        batch = [pairs[one] for one in picked]
        for place in np.flatnonzero(rng.random(len(batch)) < config.true_share):
            other = int(rng.integers(len(material.sentences)))
            batch[place] = (other, true_example(writer, material, other))
        examples = [example for _, example in batch]
        centred = material.centred[[row for row, _ in batch]]
        return av.loss(examples, centred, [example.answer for example in examples])

    return Task(
        title="AV on winners",
        parameters=av.parameters(),
        lengths=[len(example.prompt) + len(example.answer) for _, example in pairs],
        loss=loss,
        check=lambda: {"winners": float(len(won))},
    )


def winner(writer: ReadingWriter, material: Material, row: int, answer: list[int]) -> AvExample | None:
    """Return a reading as an example with the true next token; None when the reading breaks the format."""
    tail = writer.tail_of(answer)
    if tail is None:
        return None
    context = [*tail, int(material.context[row, -1])]
    return writer.av_example(material.sentences[row], context, int(material.next_tokens[row]))


def true_example(writer: ReadingWriter, material: Material, row: int) -> AvExample:
    """Return the AV's example of a row's true reading."""
    return writer.av_example(
        material.sentences[row], material.context[row].tolist(), int(material.next_tokens[row])
    )


def true_sequence(writer: ReadingWriter, material: Material, row: int) -> list[int]:
    """Return the AR's prompt for a row's true reading."""
    context = material.context[row].tolist()
    text = writer.true_text(material.sentences[row], context, int(material.next_tokens[row]))
    return writer.ar_ids(text, context[-1])


def av_examples(writer: ReadingWriter, material: Material) -> list[AvExample]:
    """Return the AV's examples of all rows' true readings."""
    return [true_example(writer, material, row) for row in range(len(material.sentences))]


class TeacherForcing(NamedTuple):
    """A verbalizer's accuracy with teacher forcing, one entry per sample, (n,)."""

    next_right: NDArray[np.float64]
    """Whether the model's likeliest next token is named."""
    before_1: NDArray[np.float64]
    """Whether the token before the read one is right; `before_2` and `before_4` count further back."""
    before_2: NDArray[np.float64]
    before_4: NDArray[np.float64]
    loss: NDArray[np.float64]
    """Mean loss of the quoted words, in nats per token."""


def teacher_forced(
    av: Verbalizer, examples: Sequence[AvExample], centred: NDArray[np.float32]
) -> TeacherForcing:
    """Measure the verbalizer with teacher forcing on examples with centred vectors (n, d)."""
    import torch

    rows: list[tuple[float, ...]] = []
    with torch.inference_mode():
        for start in range(0, len(examples), _BATCH):
            batch = examples[start : start + _BATCH]
            result = av.token_losses(batch, centred[start : start + _BATCH])
            sizes = [len(example.answer) for example in batch]
            for example, losses, hits in zip(
                batch, result.losses.split(sizes), result.hits.split(sizes), strict=True
            ):
                tail = hits[example.tail].float().cpu().numpy()
                backs = (float(tail[-back]) if len(tail) >= back else np.nan for back in (1, 2, 4))
                rows.append((float(hits[0]), *backs, float(losses[example.tail].mean())))
    return TeacherForcing(*np.array(rows, np.float64).T)


def spread(total: int, count: int) -> NDArray[np.int64]:
    """Return up to `count` evenly spaced row numbers below `total`."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).astype(np.int64))


def _damaged(  # noqa: PLR0917  # the columns of one table
    writer: ReadingWriter,
    material: Material,
    row: int,
    vocabulary: NDArray[np.int64],
    damage: float,
    rng: np.random.Generator,
) -> list[int]:
    context, following = material.context[row], int(material.next_tokens[row])
    if damage:
        context = damage_far(context, vocabulary, damage, rng)
        if rng.random() < _WRONG_NEXT:
            following = int(rng.choice(material.next_tokens))
    return writer.ar_ids(writer.true_text(material.sentences[row], context, following), int(context[-1]))


def _forgetful(
    example: AvExample, vocabulary: NDArray[np.int64], damage: float, rng: np.random.Generator
) -> list[int]:
    """Return the answer with random quoted words replaced, so that the AV must rely on the vector."""
    if not damage:
        return example.answer
    seen = np.array(example.answer)
    tail = seen[example.tail]
    seen[example.tail] = np.where(rng.random(len(tail)) < damage, rng.choice(vocabulary, len(tail)), tail)
    return [int(token) for token in seen]
