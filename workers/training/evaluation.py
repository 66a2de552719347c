"""Measure a trained pair on chats it never saw, with its nulls; every figure with n and an interval."""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.training import statistics, tasks
from workers.training.config import Evaluation
from workers.training.dataset import Samples
from workers.training.reconstructor import Reconstructor
from workers.training.targets import CLOSE, OPEN, Target
from workers.training.verbalizer import Verbalizer

Figures = dict[str, dict[str, Any]]
MAX_NEW_TOKENS = 96
_READ_BATCH = 32
_NULLS = 64
_EXPLANATION = re.compile(f"{re.escape(OPEN)}(.*?){re.escape(CLOSE)}", re.DOTALL)


class HeldOut(NamedTuple):
    """What a pair is measured on."""

    samples: Samples
    targets: Sequence[Target]
    baseline: float
    """FVE baseline of the calibration set."""


def measure_reconstructor(
    ar: Reconstructor, held_out: HeldOut, train: Samples, sizes: Evaluation
) -> Figures:
    """Return the AR's fidelity on true explanations and that of its nulls."""
    samples = held_out.samples
    rebuilt = ar.rebuild([target.text for target in held_out.targets])
    token_means = statistics.token_mean_predictions(
        train.vectors, train.context[:, -1], samples.context[:, -1]
    )
    predictions = {
        "true_text_fve": rebuilt,
        "shuffled_text_fve": rebuilt[other_documents(samples.documents)],
        "empty_text_fve": np.repeat(ar.rebuild([""]), len(samples), axis=0),
        "token_mean_baseline_fve": token_means,
    }
    return {name: _fidelity(predicted, held_out, sizes) for name, predicted in predictions.items()}


def measure_verbalizer(
    av: Verbalizer, held_out: HeldOut, wrapped: Sequence[Target], sizes: Evaluation
) -> Figures:
    """Return what the AV gets right when the words before are the true ones."""
    samples = held_out.samples
    real = tasks.teacher_forced(av, wrapped, samples.vectors)
    shuffled = tasks.teacher_forced(av, wrapped, samples.vectors[other_documents(samples.documents)])
    values = {
        "last_token_right": real.last_right,
        "last_token_right_shuffled": shuffled.last_right,
        "next_token_right": real.next_right,
        "next_token_right_shuffled": shuffled.next_right,
        "loss_gap_shuffled_minus_real": shuffled.loss - real.loss,
    }
    return {name: _estimate(value, samples.documents, sizes) for name, value in values.items()}


def measure_round_trip(
    av: Verbalizer,
    ar: Reconstructor,
    held_out: HeldOut,
    sizes: Evaluation,
    *,
    seed: int,
    advance: Callable[[int], None],
) -> tuple[Figures, list[str]]:
    """Let the AV write freely and the AR rebuild; returns figures and the texts that were read."""
    rows = tasks.spread(len(held_out.samples), sizes.round_trip_vectors)
    chosen = HeldOut(
        held_out.samples.take(rows), [held_out.targets[row] for row in rows], held_out.baseline
    )
    answers = read(av, chosen.samples.vectors, advance=advance)
    texts = [explanation(answer) for answer in answers]
    rebuilt = ar.rebuild(texts)
    documents = chosen.samples.documents
    quoted = np.array(
        [
            _opening(text) == _opening(target.text)
            for text, target in zip(texts, chosen.targets, strict=True)
        ]
    )
    formed = np.array([_EXPLANATION.search(answer) is not None for answer in answers])
    figures = {
        "fve": _fidelity(rebuilt, chosen, sizes),
        "shuffled_fve": _fidelity(rebuilt[other_documents(documents)], chosen, sizes),
        "random_vector_fve": _random_fidelity(av, ar, chosen, sizes, seed=seed),
        "last_token_quoted_right": _estimate(quoted.astype(np.float64), documents, sizes),
        "well_formed": _estimate(formed.astype(np.float64), documents, sizes),
    }
    return figures, texts


def read(
    av: Verbalizer, vectors: NDArray[np.float32], *, advance: Callable[[int], None] = lambda _: None
) -> list[str]:
    """Return the AV's answer for every vector, tags included."""
    answers: list[str] = []
    for start in range(0, len(vectors), _READ_BATCH):
        answers += av.write(vectors[start : start + _READ_BATCH], max_new_tokens=MAX_NEW_TOKENS)
        advance(len(answers))
    return answers


def explanation(answer: str) -> str:
    """Return the text between the tags, or the whole answer when it is not well formed."""
    found = _EXPLANATION.search(answer)
    return found.group(1).strip() if found else answer.replace(OPEN, "").strip()


def other_documents(documents: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for every row a row of another document, each used once where that is possible."""
    order = np.argsort(documents, kind="stable")
    largest = int(np.unique(documents, return_counts=True)[1].max())
    partner = np.empty(len(order), np.int64)
    partner[order] = np.roll(order, -largest)
    return partner


def _random_fidelity(
    av: Verbalizer, ar: Reconstructor, held_out: HeldOut, sizes: Evaluation, *, seed: int
) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    count = min(_NULLS, len(held_out.samples))
    noise = rng.standard_normal((count, held_out.samples.vectors.shape[1])).astype(np.float32)
    rebuilt = ar.rebuild([explanation(answer) for answer in read(av, noise)])
    values = statistics.fve(noise, rebuilt, baseline=held_out.baseline)
    return _estimate(values, np.arange(count), sizes)


def _fidelity(predicted: NDArray[np.float32], held_out: HeldOut, sizes: Evaluation) -> dict[str, Any]:
    values = statistics.fve(held_out.samples.vectors, predicted, baseline=held_out.baseline)
    return _estimate(values, held_out.samples.documents, sizes)


def _estimate(
    values: NDArray[np.float64], documents: NDArray[np.int64], sizes: Evaluation
) -> dict[str, Any]:
    return statistics.bootstrap(values, documents, rounds=sizes.bootstrap_rounds).as_dict()


def _opening(text: str) -> str:
    return text.partition('"; next')[0]
