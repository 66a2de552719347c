"""The two trainings as tasks of the loop: which text belongs to which vector, and what is checked."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.nla import fidelity
from workers.training.dataset import Samples
from workers.training.labels import Taxonomy
from workers.training.loop import Task
from workers.training.reconstructor import Reconstructor
from workers.training.targets import Target, TargetWriter, facts_of
from workers.training.verbalizer import Verbalizer

CHECKED = 96
"""Held-out rows of the figures at every checkpoint: enough to see a stall, cheap enough to repeat."""
_BATCH = 16


class TeacherForced(NamedTuple):
    """What a verbalizer gets right when the words before are the true ones; one entry a sample."""

    last_right: NDArray[np.float64]
    """Whether every token of the read token's quote is right."""
    next_right: NDArray[np.float64]
    """The same for the model's own likeliest next token."""
    loss: NDArray[np.float64]
    """Mean loss of the quoted tokens, in nats."""


def write_targets(writer: TargetWriter, samples: Samples, taxonomy: Taxonomy) -> list[Target]:
    """Return every sample's explanation."""
    labels = zip(samples.topic.tolist(), samples.register.tolist(), samples.kinds.tolist(), strict=True)
    columns = zip(samples.context.tolist(), samples.next_tokens.tolist(), labels, strict=True)
    return [
        writer.write(facts_of(taxonomy, context, next_tokens, label))
        for context, next_tokens, label in columns
    ]


def reconstructor_task(
    ar: Reconstructor,
    texts: Sequence[str],
    vectors: NDArray[np.float32],
    *,
    held_out_texts: Sequence[str],
    held_out: NDArray[np.float32],
    baseline: float,
    title: str = "AR",
) -> Task:
    """Train text to vector; check the FVE of true and of shuffled held-out pairs."""
    sequences = [ar.encode(text) for text in texts]
    chosen = spread(len(held_out), CHECKED)

    def check() -> dict[str, float]:
        rebuilt = ar.rebuild([held_out_texts[row] for row in chosen])
        real = fidelity.fve(held_out[chosen], rebuilt, baseline=baseline)
        shuffled = fidelity.fve(
            held_out[chosen], np.roll(rebuilt, len(chosen) // 2, axis=0), baseline=baseline
        )
        return {"fve": float(real.mean()), "shuffled_fve": float(shuffled.mean())}

    return Task(
        title=title,
        parameters=ar.parameters(),
        lengths=[len(sequence) for sequence in sequences],
        loss=lambda rows: ar.loss([sequences[row] for row in rows], vectors[rows]),
        check=check,
    )


def verbalizer_task(
    av: Verbalizer,
    targets: Sequence[Target],
    samples: Samples,
    *,
    held_out_targets: Sequence[Target],
    held_out: Samples,
) -> Task:
    """Train vector to text; check quotes and the loss gap between real and shuffled vectors."""
    chosen = spread(len(held_out), CHECKED)

    def check() -> dict[str, float]:
        wanted = [held_out_targets[row] for row in chosen]
        real = teacher_forced(av, wanted, held_out.vectors[chosen])
        shuffled = teacher_forced(av, wanted, np.roll(held_out.vectors[chosen], len(chosen) // 2, axis=0))
        return {
            "last_right": float(real.last_right.mean()),
            "next_right": float(real.next_right.mean()),
            "held_out_loss": float(real.loss.mean()),
            "gap": float((shuffled.loss - real.loss).mean()),
        }

    return Task(
        title="AV",
        parameters=av.parameters(),
        lengths=[len(target.ids) for target in targets],
        loss=lambda rows: av.loss([targets[row] for row in rows], samples.vectors[rows]),
        check=check,
    )


def teacher_forced(
    av: Verbalizer, targets: Sequence[Target], vectors: NDArray[np.float32]
) -> TeacherForced:
    """Measure the verbalizer on known targets."""
    import torch

    found: list[tuple[float, float, float]] = []
    with torch.inference_mode():
        for start in range(0, len(targets), _BATCH):
            batch = targets[start : start + _BATCH]
            result = av.token_losses(batch, vectors[start : start + _BATCH])
            sizes = [len(target.ids) for target in batch]
            for target, losses, hits in zip(
                batch, result.losses.split(sizes), result.hits.split(sizes), strict=True
            ):
                found.append(_judge(target, losses.numpy(), hits.numpy()))
    last, following, loss = np.array(found, np.float64).T
    return TeacherForced(last, following, loss)


def spread(total: int, count: int) -> NDArray[np.int64]:
    """Return up to `count` rows spread evenly over `total`."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).astype(np.int64))


def _judge(target: Target, losses: NDArray[Any], hits: NDArray[Any]) -> tuple[float, float, float]:
    kinds = np.array(target.kinds)
    # The first of the three next tokens ends where the frame resumes.
    first_next = int(np.argmax(kinds == "next"))
    length = int(np.argmax(kinds[first_next:] != "next"))
    return (
        float(hits[kinds == "last"].all()),
        float(hits[first_next : first_next + length].all()),
        float(losses[kinds != "frame"].mean()),
    )
