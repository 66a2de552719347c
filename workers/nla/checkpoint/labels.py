"""The label head of a pair: register, area, topic and kinds of a vector, with probabilities.

The head is a small network on the centred unit vector, trained on labels of the text up to the read token.
It names an area, topic or kind only above thresholds set on held-out chats, and abstains below them.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workers.nla.checkpoint.projector import load_arrays
from workers.nla.claims import VectorLabels, first_sentence
from workers.nla.errors import MetaError

FILE, NAMES = "labels.safetensors", "labels.json"
Array = NDArray[np.float32]


class Names(BaseModel):
    """Names of the outputs, and the probability from which each is named."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    areas: tuple[str, ...]
    topics: dict[str, str]
    """Topic to area, in the order of the outputs."""
    registers: tuple[str, ...]
    kinds: tuple[str, ...]
    area_above: float = Field(ge=0)
    topic_above: float = Field(ge=0)
    kind_above: dict[str, float]
    """Threshold by kind; above 1 for a kind without enough data, which is then never named."""
    hidden: int = Field(gt=0)
    """Width of the hidden layer."""


class Scores(NamedTuple):
    """Probabilities of a batch."""

    areas: Array
    """(n, areas), rows sum to 1."""
    topics: Array
    """(n, topics), rows sum to 1."""
    registers: Array
    """(n, registers), rows sum to 1."""
    kinds: Array
    """(n, kinds), independent of each other."""


class LabelHead(NamedTuple):
    """Weights in float32, and the names of the outputs."""

    names: Names
    hidden_weight: Array
    """(hidden, d_model)."""
    hidden_bias: Array
    out_weight: Array
    """(outputs, hidden); the outputs are areas, topics, registers and kinds, in this order."""
    out_bias: Array

    def score(self, centred: Array) -> Scores:
        """Return the probabilities of centred vectors (n, d_model); see `Projector.centre`."""
        hidden = _gelu(centred @ self.hidden_weight.T + self.hidden_bias)
        logits = hidden @ self.out_weight.T + self.out_bias
        names = self.names
        sizes = (len(names.areas), len(names.topics), len(names.registers))
        areas, topics, registers, kinds = np.split(logits, np.cumsum(sizes), axis=1)
        return Scores(_softmax(areas), _softmax(topics), _softmax(registers), _sigmoid(kinds))

    def label(self, centred: Array) -> list[VectorLabels]:
        """Return the labels of centred vectors (n, d_model); uncertain ones are left out."""
        scores = self.score(centred)
        return [_label(self.names, *row) for row in zip(*scores, strict=True)]

    def longest_sentences(self) -> Iterator[str]:
        """Yield the sentence of every register and theme with all kinds; no other sentence is longer."""
        names = self.names
        for register in names.registers:
            for topic, area in names.topics.items():
                yield first_sentence(VectorLabels(register, area, topic, names.kinds, {}, {}))
            for area in names.areas:
                yield first_sentence(VectorLabels(register, area, None, names.kinds, {}, {}))


def _label(names: Names, areas: Array, topics: Array, registers: Array, kinds: Array) -> VectorLabels:
    area = names.areas[int(areas.argmax())] if areas.max() >= names.area_above else None
    inside = np.array([area is not None and of == area for of in names.topics.values()])
    # Only topics of the named area qualify, so that the sentence does not contradict itself.
    within = np.where(inside, topics, 0.0)
    topic = (
        list(names.topics)[int(within.argmax())] if within.max() >= max(names.topic_above, 1e-9) else None
    )
    scores = dict(zip(names.kinds, kinds.tolist(), strict=True))
    return VectorLabels(
        register=names.registers[int(registers.argmax())],
        area=area,
        topic=topic,
        kinds=tuple(kind for kind, score in scores.items() if score >= names.kind_above[kind]),
        areas=dict(zip(names.areas, areas.tolist(), strict=True)),
        kind_scores=scores,
    )


def load_labels(folder: Path, *, d_model: int, file: str = FILE, names_file: str = NAMES) -> LabelHead:
    """Load the label head from an AV's folder; MetaError names the file, the field and the fix."""
    path = folder / names_file
    try:
        names = Names.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise MetaError(f"{path}: missing; it ships with the pair, copy the pair again") from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise MetaError(f"{path}: {field}: {first['msg'].lower()}; copy the file again") from None
    except ValueError as error:
        raise MetaError(f"{path}: not JSON ({error}); copy the file again") from error
    _check_names(path, names)
    outputs = sum(map(len, (names.areas, names.topics, names.registers, names.kinds)))
    arrays = load_arrays(
        folder / file,
        {
            "hidden_weight": (names.hidden, d_model),
            "hidden_bias": (names.hidden,),
            "out_weight": (outputs, names.hidden),
            "out_bias": (outputs,),
        },
    )
    return LabelHead(names, **arrays)


def pool_areas(areas: Sequence[VectorLabels]) -> tuple[str, float, int]:
    """Return a request's likeliest area, its mean probability, and the number of readings that name it."""
    names = list(areas[0].areas)
    mean = np.mean([[one.areas[name] for name in names] for one in areas], axis=0)
    best = names[int(mean.argmax())]
    return best, float(mean.max()), sum(one.area == best for one in areas)


def _check_names(path: Path, names: Names) -> None:
    if set(names.kind_above) != set(names.kinds):
        raise MetaError(f"{path}: kind_above: must name every kind exactly once; copy the file again")
    unlisted = sorted(set(names.topics.values()) - set(names.areas))
    if unlisted:
        raise MetaError(
            f"{path}: topics: belong to areas {unlisted} that are not listed; copy the file again"
        )


def _gelu(values: Array) -> Array:
    # Training uses the tanh form, too.
    inner = np.sqrt(2 / np.pi) * (values + 0.044715 * values**3)
    return np.asarray(0.5 * values * (1 + np.tanh(inner)), np.float32)


def _softmax(logits: Array) -> Array:
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True), np.float32)


def _sigmoid(logits: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -60, 60))), np.float32)
