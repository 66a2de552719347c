"""What a text is about, from a fixed taxonomy: topic, register, and kinds that an auditor asks for.

The labels come from the text alone, by an offline sentence embedder and a few patterns, so that no
language model's opinion enters the targets. A pair that learns them has to find them in the vector.
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
"""How fast a topic's weight falls with its cosine: 0.1 less is a twentieth."""
OTHER_TOPIC = "something else"
QUESTION, ANSWER = "a request", "an answer"
"""Registers of texts that no pattern claims: the user's words, and the model's."""


class Register(Part):
    """A form of text, by pattern."""

    name: str
    pattern: str


class Kind(Part):
    """Something that a safety auditor wants named, by pattern or by similarity to the examples."""

    name: str
    pattern: str
    examples: tuple[str, ...] = ()
    threshold: float = pydantic.Field(default=1.0, gt=0, le=1)


class Taxonomy(Part):
    """Every label there is; at most 62 kinds, which are stored as bits."""

    version: int
    topics: dict[str, str]
    """Name to words that describe it."""
    topic_floor: float = pydantic.Field(ge=0, lt=1)
    areas: dict[str, tuple[str, ...]]
    """Name to the topics that belong to it; every topic belongs to exactly one area."""
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
        """Return each topic's area, in the topics' order."""
        areas = {topic: area for area, topics in self.areas.items() for topic in topics}
        return {topic: areas[topic] for topic in self.topics}

    @property
    def topic_names(self) -> tuple[str, ...]:
        """Return the topics by index; the last stands for everything else."""
        return (*self.topics, OTHER_TOPIC)

    @property
    def register_names(self) -> tuple[str, ...]:
        """Return the registers by index."""
        return (*(one.name for one in self.registers), QUESTION, ANSWER)


class Labels(NamedTuple):
    """Indices into a taxonomy, one entry a text."""

    areas: NDArray[np.float32]
    """(n, areas): a soft choice, rows sum to 1."""
    topic: NDArray[np.int64]
    register: NDArray[np.int64]
    kinds: NDArray[np.int64]
    """Bit i stands for the taxonomy's kind i."""


def load_taxonomy(path: Path) -> Taxonomy:
    """Read and check a taxonomy; ValueError names every wrong field."""
    return Taxonomy.model_validate(yaml.safe_load(path.read_text()))


class Labeller:
    """Labels texts; the taxonomy is embedded once."""

    def __init__(self, taxonomy: Taxonomy, embedder: Embedder) -> None:
        """Compile the patterns and embed the descriptions."""
        self._taxonomy = taxonomy
        self._embedder = embedder
        self._topics = embedder.embed([f"{name}: {words}" for name, words in taxonomy.topics.items()])
        area_names = list(taxonomy.areas)
        self._membership = np.zeros((len(taxonomy.topics), len(area_names)), np.float32)
        for index, area in enumerate(taxonomy.area_of_topics.values()):
            # Divided by the area's size, so that an area of many topics is not likelier for that alone.
            self._membership[index, area_names.index(area)] = 1 / len(taxonomy.areas[area]) ** 0.5
        flags = re.IGNORECASE | re.MULTILINE
        self._registers = [re.compile(one.pattern, flags) for one in taxonomy.registers]
        self._kinds = [re.compile(one.pattern, flags) for one in taxonomy.kinds]
        self._examples = [embedder.embed(one.examples) for one in taxonomy.kinds]

    def label(self, texts: Sequence[str], subjects: Sequence[str], is_request: Sequence[bool]) -> Labels:
        """Label texts: registers and patterns from the whole, topics and similarity from its subject.

        `subjects` are the words that say what the text is about: the request, or its part so far.
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
        """Add up what an area's topics have of a softmax over all: near synonyms share, not compete."""
        weights = np.exp(_SHARPNESS * (similarity - similarity.max(axis=1, keepdims=True)))
        summed = weights @ self._membership
        return np.asarray(summed / summed.sum(axis=1, keepdims=True), np.float32)

    def _topic(self, similarity: NDArray[np.float32]) -> NDArray[np.int64]:
        best = similarity.argmax(axis=1)
        found = similarity[np.arange(len(best)), best] >= self._taxonomy.topic_floor
        return np.where(found, best, len(self._taxonomy.topics)).astype(np.int64)

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
