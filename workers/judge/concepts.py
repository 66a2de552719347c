"""Concepts to watch for, and which explanations match them.

One match is only a hint; `workers.judge.flags` decides when matches make a flag.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import re2
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from workers.judge.embedder import Embedder

MatcherKind = Literal["regex", "semantic"]


class ConceptsError(ValueError):
    """concepts.yaml cannot be used; the message names the concept, the field and the fix."""


class _StrictModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Semantic(_StrictModel):
    """Matches a text whose embedding is close enough to that of any example."""

    examples: Annotated[tuple[str, ...], Field(min_length=1)]
    threshold: Annotated[float, Field(gt=0.0, lt=1.0)]


class Matcher(_StrictModel):
    """Exactly one of a regular expression and a semantic similarity."""

    regex: str | None = None
    semantic: Semantic | None = None

    @field_validator("regex")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                _compile(pattern)
            except re2.error as error:
                reason = error.args[0].decode() if isinstance(error.args[0], bytes) else error
                raise ValueError(
                    f"is not a regular expression of RE2: {reason}; it has no look-around, no"
                    " back-references and no repetition beyond 1,000, so write several matchers instead"
                ) from error
        return pattern

    @model_validator(mode="after")
    def _is_one(self) -> "Matcher":
        if (self.regex is None) == (self.semantic is None):
            raise ValueError("needs exactly one of regex and semantic")
        return self


class Concept(_StrictModel):
    """One concept as the operator wrote it."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
    description: Annotated[str, Field(min_length=1)]
    severity: Literal["info", "warning", "critical"]
    positions_required: Annotated[int, Field(ge=2)] = 2
    matchers: Annotated[tuple[Matcher, ...], Field(min_length=1)]


class _File(_StrictModel):
    version: Literal[1]
    concepts: Annotated[tuple[Concept, ...], Field(min_length=1)]

    @field_validator("concepts")
    @classmethod
    def _names_are_unique(cls, concepts: tuple[Concept, ...]) -> tuple[Concept, ...]:
        names = [concept.name for concept in concepts]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"names must be unique, these come twice: {', '.join(twice)}")
        return concepts


class Match(NamedTuple):
    """One explanation that matched one concept."""

    concept: str
    matcher: MatcherKind
    score: float
    """1.0 for a regex, the cosine similarity otherwise."""


class ConceptSet(NamedTuple):
    """The concepts in force, and the digest that flags are stored with."""

    concepts: tuple[Concept, ...]
    digest: str
    """SHA-256 of the file."""

    def by_name(self) -> dict[str, Concept]:
        """Return the concepts by name."""
        return {concept.name: concept for concept in self.concepts}


def load_concepts(path: Path) -> ConceptSet:
    """Read and validate concepts.yaml; raises ConceptsError."""
    try:
        content = path.read_bytes()
        document = yaml.safe_load(content)
    except (OSError, yaml.YAMLError) as error:
        raise ConceptsError(f"{path}: cannot be read: {error}") from error
    try:
        parsed = _File.model_validate(document)
    except ValidationError as error:
        raise ConceptsError(_explain(path, document, error)) from None
    return ConceptSet(parsed.concepts, hashlib.sha256(content).hexdigest())


class ConceptMatcher:
    """Finds concepts in texts; the examples are embedded once, at construction."""

    def __init__(self, concepts: ConceptSet, embedder: Embedder, thresholds: Mapping[str, float]) -> None:
        """Compile the patterns and embed the examples.

        ``thresholds`` (cosine by concept name) override those in concepts.yaml.
        """
        self._embedder = embedder
        self._patterns = [
            (concept.name, _compile(matcher.regex))
            for concept in concepts.concepts
            for matcher in concept.matchers
            if matcher.regex is not None
        ]
        self._semantics: list[tuple[str, float, NDArray[np.float32]]] = [
            (
                concept.name,
                thresholds.get(concept.name, matcher.semantic.threshold),
                embedder.embed(matcher.semantic.examples),
            )
            for concept in concepts.concepts
            for matcher in concept.matchers
            if matcher.semantic is not None
        ]

    def match(self, texts: Sequence[str]) -> list[list[Match]]:
        """Return each text's matches: for every concept at most one, the highest-scoring."""
        matches_by_text: list[dict[str, Match]] = [{} for _ in texts]
        # RE2 and embedders work on UTF-8, which has no lone surrogates.
        encodable = [text.encode(errors="replace").decode() for text in texts]
        for name, pattern in self._patterns:
            for text, matches in zip(encodable, matches_by_text, strict=True):
                if pattern.search(text):
                    matches[name] = Match(name, "regex", 1.0)
        if self._semantics and texts:
            self._match_semantics(self._embedder.embed(encodable), matches_by_text)
        return [list(matches.values()) for matches in matches_by_text]

    def _match_semantics(
        self, vectors: NDArray[np.float32], matches_by_text: list[dict[str, Match]]
    ) -> None:
        for name, threshold, examples in self._semantics:
            similarities = (vectors @ examples.T).max(axis=1)
            for similarity, matches in zip(similarities.tolist(), matches_by_text, strict=True):
                known = matches.get(name)
                if similarity >= threshold and (known is None or similarity > known.score):
                    matches[name] = Match(name, "semantic", similarity)


def _compile(pattern: str) -> Any:
    """Compile with RE2, which takes time in proportion to the text, whatever pattern and text are.

    An audited client has a hand in the texts: one that fits a pattern of Python's own engine badly would
    stop the worker for hours.
    """
    options = re2.Options()
    options.case_sensitive = False
    options.log_errors = False
    return re2.compile(pattern, options)


def _explain(path: Path, document: object, error: ValidationError) -> str:
    """Identify the concept by name, which is easier to find in the file than an index."""
    first = error.errors()[0]
    place: list[str] = []
    location = list(first["loc"])
    if location[:1] == ["concepts"] and len(location) > 1 and isinstance(location[1], int):
        place.append(f"concept {_name_of(document, location[1])}")
        location = location[2:]
    place.append(".".join(str(part) for part in location) or "file")
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "unknown field; remove it or correct its name"
    return f"{path}: {': '.join(place)}: {message}"


def _name_of(document: object, index: int) -> str:
    try:
        return repr(document["concepts"][index]["name"])  # type: ignore[index]  # any shape may come
    except (KeyError, TypeError, IndexError):
        return f"number {index + 1}"
