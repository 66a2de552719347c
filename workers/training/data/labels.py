"""Label texts by a fixed taxonomy: area, topic, register, and kinds that an auditor asks for.

A sentence embedder and patterns compute the labels from the text alone, so no language model's opinion
enters the targets.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import pydantic
import yaml
from numpy.typing import NDArray

from workers.judge.embedder import Embedder
from workers.training.config import Part

_SHARPNESS = 30.0
"""Inverse temperature of the softmax over cosines; a cosine lower by 0.1 has a twentieth of the weight."""
OTHER_TOPIC = "something else"
QUESTION, ANSWER = "a request", "an answer"
"""Registers of texts that match no pattern: the user's words, and the model's."""


class Register(Part):
    """A form of text, recognized by a pattern."""

    name: str
    pattern: str


class Kind(Part):
    """Content that a safety auditor asks for, recognized by a pattern or by similarity to examples."""

    name: str
    pattern: str
    examples: tuple[str, ...] = ()
    threshold: float = pydantic.Field(default=1.0, gt=0, le=1)


class Taxonomy(Part):
    """All labels; at most 62 kinds, because they are stored as bits of an int64."""

    version: int
    topics: dict[str, str]
    """Description by topic."""
    topic_floor: float = pydantic.Field(ge=0, lt=1)
    """Smallest cosine at which a topic is assigned."""
    areas: dict[str, tuple[str, ...]]
    """Topics by area; every topic belongs to exactly one area."""
    registers: tuple[Register, ...]
    kinds: tuple[Kind, ...] = pydantic.Field(max_length=62)

    @pydantic.model_validator(mode="after")
    def _divides_topics(self) -> Self:
        named = [topic for topics in self.areas.values() for topic in topics]
        if sorted(named) != sorted(self.topics):
            wrong = sorted(set(named) ^ set(self.topics)) or sorted(
                {topic for topic in named if named.count(topic) > 1}
            )
            raise ValueError(
                f"areas: every topic must stand in exactly one area; wrong: {', '.join(wrong)}"
            )
        return self

    @property
    def area_of_topics(self) -> dict[str, str]:
        """Area by topic, in the topics' order."""
        areas = {topic: area for area, topics in self.areas.items() for topic in topics}
        return {topic: areas[topic] for topic in self.topics}

    @property
    def topic_names(self) -> tuple[str, ...]:
        """Topics by index; the last one stands for everything else."""
        return (*self.topics, OTHER_TOPIC)

    @property
    def register_names(self) -> tuple[str, ...]:
        """Registers by index."""
        return (*(one.name for one in self.registers), QUESTION, ANSWER)


class Labels(NamedTuple):
    """Labels of n texts, as indices into a taxonomy; columns without a given shape are (n,)."""

    areas: NDArray[np.float32]
    """Area probabilities, (n, areas), rows sum to 1."""
    topic: NDArray[np.int64]
    register: NDArray[np.int64]
    kinds: NDArray[np.int64]
    """Bit i is set for the taxonomy's kind i."""


def load_taxonomy(path: Path) -> Taxonomy:
    """Read and validate a taxonomy; ValueError names every wrong field."""
    return Taxonomy.model_validate(yaml.safe_load(path.read_text()))


class Labeller:
    """Labels texts; the taxonomy is embedded once, at construction."""

    def __init__(self, taxonomy: Taxonomy, embedder: Embedder) -> None:
        """Compile the patterns and embed the descriptions."""
        self._taxonomy = taxonomy
        self._embedder = embedder
        self._topics = embedder.embed([f"{name}: {words}" for name, words in taxonomy.topics.items()])
        area_names = list(taxonomy.areas)
        self._membership = np.zeros((len(taxonomy.topics), len(area_names)), np.float32)
        for index, area in enumerate(taxonomy.area_of_topics.values()):
            # The normalization keeps areas with many topics from being likelier for that reason alone.
            self._membership[index, area_names.index(area)] = 1 / len(taxonomy.areas[area]) ** 0.5
        flags = re.IGNORECASE | re.MULTILINE
        self._registers = [re.compile(one.pattern, flags) for one in taxonomy.registers]
        self._kinds = [re.compile(one.pattern, flags) for one in taxonomy.kinds]
        self._examples = [embedder.embed(one.examples) for one in taxonomy.kinds]

    def label(self, texts: Sequence[str], subjects: Sequence[str], is_request: Sequence[bool]) -> Labels:
        """Label texts: patterns apply to the whole text, similarities to its subject.

        `subjects` are the parts of the texts that the labels describe: the request, as far as it is seen.
        """
        embedded = self._embed_distinct(subjects)
        similarity = embedded @ self._topics.T
        return Labels(
            self._areas(similarity),
            self._topic(similarity),
            np.array([self._register(*one) for one in zip(texts, is_request, strict=True)], np.int64),
            np.array([self._bits(*one) for one in zip(texts, embedded, strict=True)], np.int64),
        )

    def _embed_distinct(self, texts: Sequence[str]) -> NDArray[np.float32]:
        distinct = list(dict.fromkeys(texts))
        places = {text: place for place, text in enumerate(distinct)}
        return self._embedder.embed(distinct)[[places[text] for text in texts]]

    def _areas(self, similarity: NDArray[np.float32]) -> NDArray[np.float32]:
        """Sum a softmax over all topics within each area, so that near-synonymous topics do not compete."""
        weights = np.exp(_SHARPNESS * (similarity - similarity.max(axis=1, keepdims=True)))
        summed = weights @ self._membership
        return np.asarray(summed / summed.sum(axis=1, keepdims=True), np.float32)

    def _topic(self, similarity: NDArray[np.float32]) -> NDArray[np.int64]:
        best = similarity.argmax(axis=1)
        is_close = similarity[np.arange(len(best)), best] >= self._taxonomy.topic_floor
        return np.where(is_close, best, len(self._taxonomy.topics)).astype(np.int64)

    def _register(self, text: str, is_request: bool) -> int:  # noqa: FBT001  # a column of a table
        for index, pattern in enumerate(self._registers):
            if pattern.search(text):
                return index
        return len(self._registers) + (0 if is_request else 1)

    def _bits(self, text: str, embedded: NDArray[np.float32]) -> int:
        bits = 0
        for index, kind in enumerate(self._taxonomy.kinds):
            similar = len(self._examples[index]) and float((self._examples[index] @ embedded).max())
            if self._kinds[index].search(text) or similar >= kind.threshold:
                bits |= 1 << index
        return bits
