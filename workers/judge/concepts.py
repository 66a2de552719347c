"""Concepts to watch for: their definitions, and the file that the operator writes them in.

A concept never changes once it is used: its content has a digest, and a change needs a new version.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple

import re2
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from workers.judge.probes import LinearProbe, ProbeError, load_probe
from workers.judge.probes import digest as digest_of

MatcherKind = Literal["regex", "semantic", "claim", "probe"]
Share = Annotated[float, Field(gt=0.0, lt=1.0)]


class ConceptsError(ValueError):
    """concepts.yaml cannot be used; the message names the concept, the field and the fix."""


class _StrictModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Semantic(_StrictModel):
    """Matches a text whose embedding is close enough to that of any example."""

    examples: Annotated[tuple[str, ...], Field(min_length=1)]
    threshold: Share
    """Cosine, until a calibration sets another."""


class Claim(_StrictModel):
    """Matches what the reading's claims name: exactly one of kind, area and topic.

    With a ``threshold`` the probability counts instead of the naming; topics have none.
    """

    kind: str | None = None
    area: str | None = None
    topic: str | None = None
    threshold: Share | None = None

    @model_validator(mode="after")
    def _is_one(self) -> "Claim":
        if sum(name is not None for name in (self.kind, self.area, self.topic)) != 1:
            raise ValueError("needs exactly one of kind, area and topic")
        if self.topic is not None and self.threshold is not None:
            raise ValueError("topics have no probability; remove the threshold, or name the topic's area")
        return self


class Probe(_StrictModel):
    """Matches a vector by a direction of its own layer, whatever was read of it."""

    file: Annotated[str, Field(min_length=1, exclude=True)]
    """Made by `subtext concept fit`; relative to concepts.yaml. Not part of the definition."""
    threshold: Share
    """On the probe's score, until a calibration sets another."""
    digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    """Of what the file holds. Loading fills it in; one that is written must be the file's."""


class Matcher(_StrictModel):
    """Exactly one of a regular expression, a semantic similarity, a claim and a probe."""

    regex: str | None = None
    semantic: Semantic | None = None
    claim: Claim | None = None
    probe: Probe | None = None

    @property
    def kind(self) -> MatcherKind:
        """Which of them it is."""
        kinds: tuple[MatcherKind, ...] = ("regex", "semantic", "claim", "probe")
        return next(kind for kind in kinds if getattr(self, kind) is not None)

    @property
    def threshold(self) -> float | None:
        """The threshold on the matcher's score; None for one that matches or does not."""
        part = self.semantic or self.claim or self.probe
        return None if part is None else part.threshold

    @field_validator("regex")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                compile_pattern(pattern)
            except re2.error as error:
                reason = error.args[0].decode() if isinstance(error.args[0], bytes) else error
                raise ValueError(
                    f"is not a regular expression of RE2: {reason}; it has no look-around, no"
                    " back-references and no repetition beyond 1,000, so write several matchers instead"
                ) from error
        return pattern

    @model_validator(mode="after")
    def _is_one(self) -> "Matcher":
        if sum(part is not None for part in (self.regex, self.semantic, self.claim, self.probe)) != 1:
            raise ValueError("needs exactly one of regex, semantic, claim and probe")
        return self


class Concept(_StrictModel):
    """One concept as the operator wrote it."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
    version: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    """None in files of version 1, whose concepts may change without a new version."""
    description: Annotated[str, Field(min_length=1)]
    severity: Literal["info", "warning", "critical"]
    positions_required: Annotated[int, Field(ge=2)] = 2
    target_false_positive_rate: Share | None = None
    """Share of benign requests that may be flagged; None: `DEFAULT_TARGET`."""
    second_review: Literal[True] | None = None
    """An incident with it is decided when a second reviewer says the same; None: by one."""
    matchers: Annotated[tuple[Matcher, ...], Field(min_length=1)]

    @property
    def content(self) -> dict[str, Any]:
        """The definition as JSON, without what is not given."""
        return self.model_dump(mode="json", exclude_none=True)

    @property
    def digest(self) -> str:
        """SHA-256 of the definition, whatever its layout in the file."""
        canonical = json.dumps(self.content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def target(self) -> float:
        """The false-positive rate to calibrate for."""
        return self.target_false_positive_rate or DEFAULT_TARGET


DEFAULT_TARGET = 0.01


class _File(_StrictModel):
    version: Literal[1, 2]
    concepts: Annotated[tuple[Concept, ...], Field(min_length=1)]

    @field_validator("concepts")
    @classmethod
    def _names_are_unique(cls, concepts: tuple[Concept, ...]) -> tuple[Concept, ...]:
        names = [concept.name for concept in concepts]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"names must be unique, these come twice: {', '.join(twice)}")
        return concepts


class ConceptSet(NamedTuple):
    """The concepts in force, and the digest that flags are stored with."""

    concepts: tuple[Concept, ...]
    digest: str
    """SHA-256 of the file, and of the digests of its probes."""
    probes: Mapping[str, LinearProbe] = MappingProxyType({})
    """By digest."""

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
    for concept in parsed.concepts:
        _check_version(path, parsed.version, concept)
    probes: dict[str, LinearProbe] = {}
    concepts = tuple(_with_probes(path, concept, probes) for concept in parsed.concepts)
    digest = hashlib.sha256(content + "".join(sorted(probes)).encode()).hexdigest()
    return ConceptSet(concepts, digest, probes)


def _with_probes(path: Path, concept: Concept, known: dict[str, LinearProbe]) -> Concept:
    """Return the concept with the digests of its probes, which come to be ``known``."""
    matchers = []
    for number, matcher in enumerate(concept.matchers):
        if (probe := matcher.probe) is None:
            matchers.append(matcher)
            continue
        place = f"{path}: concept {concept.name!r}: matchers.{number}.probe"
        try:
            loaded = load_probe(path.parent / probe.file)
        except ProbeError as error:
            raise ConceptsError(f"{place}.file: {error}") from error
        digest = digest_of(loaded)
        if probe.digest not in {None, digest}:
            raise ConceptsError(
                f"{place}.digest: {probe.file} has {digest}; restore the file, or write its digest and"
                " raise the concept's version"
            )
        known[digest] = loaded
        with_digest = probe.model_copy(update={"digest": digest})
        matchers.append(matcher.model_copy(update={"probe": with_digest}))
    return concept.model_copy(update={"matchers": tuple(matchers)})


def compile_pattern(pattern: str) -> Any:
    """Compile with RE2, which takes time in proportion to the text, whatever pattern and text are.

    An audited client has a hand in the texts: one that fits a pattern of Python's own engine badly would
    stop the worker for hours.
    """
    options = re2.Options()
    options.case_sensitive = False
    options.log_errors = False
    return re2.compile(pattern, options)


def _check_version(path: Path, file_version: int, concept: Concept) -> None:
    place = f"{path}: concept {concept.name!r}"
    if file_version == 1:
        for field in ("version", "target_false_positive_rate", "second_review"):
            if getattr(concept, field) is not None:
                raise ConceptsError(
                    f"{place}: {field}: is of files of version 2; set version: 2 at the top"
                )
        for matcher in concept.matchers:
            if matcher.kind in {"claim", "probe"}:
                raise ConceptsError(
                    f"{place}: matchers: {matcher.kind} is of files of version 2; set version: 2"
                )
        return
    if concept.version is None:
        raise ConceptsError(f"{place}: version: missing; begin with 1 and raise it with every change")
    scored = sorted({matcher.kind for matcher in concept.matchers if matcher.threshold is not None})
    if len(scored) > 1:
        raise ConceptsError(
            f"{place}: matchers: {' and '.join(scored)} have no common threshold to calibrate;"
            " give thresholds to one kind of matcher, or make two concepts"
        )


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
