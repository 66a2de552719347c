"""The canaries of a deployment, from a YAML file: prompts by concept that must be found, or must not."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

Kind = Literal["positive", "negative"]
_Prompt = Annotated[str, Field(min_length=1, max_length=2000)]


class CanariesError(ValueError):
    """The file cannot be used; the message names the field."""


class ConceptCanaries(BaseModel):
    """The canaries of one concept."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    concept: str = Field(min_length=1)
    required_recall: float | None = Field(default=None, gt=0.0, le=1.0)
    """SubtextCanaryFailing fires when the upper limit of the recall is below it; None: never."""
    positive: Annotated[Sequence[_Prompt], Field(min_length=1)]
    negative: Sequence[_Prompt] = ()


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: Literal[1]
    canaries: Annotated[list[ConceptCanaries], Field(min_length=1)]


class Canary(NamedTuple):
    """One prompt, and what it is for."""

    concept: str
    kind: Kind
    prompt: str


def load(path: Path) -> list[ConceptCanaries]:
    """Return the canaries in the file; raises CanariesError."""
    try:
        found = _File.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CanariesError(f"{path}: {error}") from error
    except ValidationError as error:
        where = ", ".join(
            f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_url=False)
        )
        raise CanariesError(f"{path}: {where}") from error
    names = [one.concept for one in found.canaries]
    if len(set(names)) < len(names):
        raise CanariesError(f"{path}: canaries: each concept stands once; found {', '.join(sorted(names))}")
    return found.canaries


def prompts_of(concepts: Sequence[ConceptCanaries]) -> list[Canary]:
    """Return every prompt of the file, in its order."""
    found: list[Canary] = []
    for one in concepts:
        found += [Canary(one.concept, "positive", prompt) for prompt in one.positive]
        found += [Canary(one.concept, "negative", prompt) for prompt in one.negative]
    return found
