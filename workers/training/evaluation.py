"""Measure a trained pair on chats it never saw, with its nulls; every figure with n and an interval."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.nla import fidelity
from workers.nla.verbalizer import Explanation
from workers.training import tasks
from workers.training.dataset import Samples
from workers.training.readings import Readings
from workers.training.reconstructor import Reconstructor
from workers.training.targets import Target
from workers.training.verbalizer import Verbalizer

Vectors = NDArray[np.float32]
Figures = dict[str, dict[str, Any]]


class HeldOut(NamedTuple):
    """What a pair is measured on."""

    samples: Samples
    targets: Sequence[Target]
    baseline: float
    """FVE baseline of the calibration set."""
    rounds: int
    """Bootstrap rounds."""


class Noise(NamedTuple):
    """Random directions and what the AV said about them."""

    vectors: Vectors
    explanations: Sequence[Explanation]


def measure_reconstructor(ar: Reconstructor, held_out: HeldOut, train: Samples) -> Figures:
    """Return the AR's fidelity on true explanations and that of its nulls."""
    samples = held_out.samples
    rebuilt = ar.rebuild([target.text for target in held_out.targets])
    token_means = predict_token_means(train.vectors, train.context[:, -1], samples.context[:, -1])
    predictions = {
        "true_text_fve": rebuilt,
        "shuffled_text_fve": rebuilt[fidelity.other_documents(samples.documents)],
        "empty_text_fve": np.repeat(ar.rebuild([""]), len(samples), axis=0),
        "token_mean_baseline_fve": token_means,
    }
    return {name: _fidelity(predicted, held_out) for name, predicted in predictions.items()}


def measure_verbalizer(
    av: Verbalizer, held_out: HeldOut, wrapped: Sequence[Target], *, limit: int
) -> Figures:
    """Return what the AV gets right when the words before are the true ones, on `limit` rows."""
    rows = tasks.spread(len(wrapped), limit)
    held_out = held_out._replace(samples=held_out.samples.take(rows))
    wrapped, samples = [wrapped[row] for row in rows], held_out.samples
    real = tasks.teacher_forced(av, wrapped, samples.vectors)
    others = fidelity.other_documents(samples.documents)
    shuffled = tasks.teacher_forced(av, wrapped, samples.vectors[others])
    values = {
        "last_token_right": real.last_right,
        "last_token_right_shuffled": shuffled.last_right,
        "next_token_right": real.next_right,
        "next_token_right_shuffled": shuffled.next_right,
        "loss_gap_shuffled_minus_real": shuffled.loss - real.loss,
    }
    return {name: _mean(value, held_out) for name, value in values.items()}


def measure_round_trip(ar: Reconstructor, held_out: HeldOut, readings: Readings, noise: Noise) -> Figures:
    """Return the fidelity of what the AV wrote freely, with shuffled pairs and random vectors as nulls."""
    chosen = held_out._replace(
        samples=held_out.samples.take(readings.rows),
        targets=[held_out.targets[row] for row in readings.rows],
    )
    rebuilt = ar.rebuild(readings.texts)
    noise_fve = fidelity.fve(
        noise.vectors, ar.rebuild([said.text for said in noise.explanations]), baseline=held_out.baseline
    )
    quoted = [
        quote_opening(text) == quote_opening(target.text)
        for text, target in zip(readings.texts, chosen.targets, strict=True)
    ]
    formed = [said.well_formed for said in readings.explanations]
    return {
        "fve": _fidelity(rebuilt, chosen),
        "shuffled_fve": _fidelity(rebuilt[fidelity.other_documents(chosen.samples.documents)], chosen),
        "random_vector_fve": fidelity.mean_interval(
            noise_fve, np.arange(len(noise_fve)), rounds=held_out.rounds
        ).as_dict(),
        "last_token_quoted_right": _mean(np.array(quoted, np.float64), chosen),
        "well_formed": _mean(np.array(formed, np.float64), chosen),
    }


def quote_opening(text: str) -> str:
    """Return the part of an explanation that names the token that was read."""
    return text.partition('" after "')[0]


def predict_token_means(
    train: Vectors, train_tokens: NDArray[np.int64], tokens: NDArray[np.int64], *, prior: float = 1.0
) -> Vectors:
    """Predict each token's mean training direction, shrunk to the global mean by `prior` rows.

    A decoder that does not beat this has learned which token was read and nothing else.
    """
    units = fidelity.to_unit(train)
    overall = units.mean(axis=0)
    predictions = np.empty((len(tokens), units.shape[1]), np.float32)
    for token in np.unique(tokens):
        own = units[train_tokens == token]
        predictions[tokens == token] = (own.sum(axis=0) + prior * overall) / (len(own) + prior)
    return predictions


def _fidelity(predicted: Vectors, held_out: HeldOut) -> dict[str, Any]:
    return _mean(fidelity.fve(held_out.samples.vectors, predicted, baseline=held_out.baseline), held_out)


def _mean(values: NDArray[np.float64], held_out: HeldOut) -> dict[str, Any]:
    return fidelity.mean_interval(values, held_out.samples.documents, rounds=held_out.rounds).as_dict()
