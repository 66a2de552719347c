"""Whose vectors are kept, and for how many days: a file of the operator's.

    keep:
      - {tenant: default, model: HuggingFaceTB/SmolLM2-135M-Instruct, days: 7}

What the file does not name is not kept. Both names are written out: a pattern would keep more than meant.
"""

from collections import Counter
from pathlib import Path
from typing import Final, NamedTuple, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from service.store.vectors import sealing
from service.store.vectors.sealing import SealingError, WrappingKey
from subtext_sidecar.contract.secret import read_secret
from subtext_sidecar.contract.tenant import NAMES, is_tenant_name

MOST_DAYS: Final = 90
_KEY_SETTING: Final = "SUBTEXT_VECTORS_KEY_FILE"


class VectorPlanError(ValueError):
    """The file of what is kept, or the key's, cannot be used; the message names the field and the fix."""


class Kept(BaseModel):
    """One tenant's model whose vectors are kept."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    tenant: str
    model: str = Field(min_length=1, description="the served name")
    days: int = Field(ge=1, le=MOST_DAYS, description="from the capture on")

    @field_validator("tenant")
    @classmethod
    def _is_name(cls, name: str) -> str:
        if not is_tenant_name(name):
            raise ValueError(f"{name!r} is no tenant's name: {NAMES}")
        return name


class VectorPlan(BaseModel):
    """All that is kept."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    keep: list[Kept]

    @model_validator(mode="after")
    def _names_each_once(self) -> Self:
        counts = Counter((one.tenant, one.model) for one in self.keep)
        for (tenant, model), times in counts.items():
            if times > 1:
                raise ValueError(f"model {model!r} of tenant {tenant!r} is named {times} times: keep one")
        return self

    def days_of(self, tenant: str, model: str) -> int | None:
        """Return for how many days vectors of a tenant's model are kept; None: not at all."""
        return next((one.days for one in self.keep if (one.tenant, one.model) == (tenant, model)), None)


class Keeping(NamedTuple):
    """What is kept, and the operator's key that wraps those of the tenants."""

    plan: VectorPlan
    wrapping: WrappingKey


def load(plan_file: Path, key_file: Path) -> Keeping:
    """Read both files; raises VectorPlanError."""
    return Keeping(load_plan(plan_file), load_key(key_file))


def load_plan(file: Path) -> VectorPlan:
    """Read what is kept; VectorPlanError names the field and the fix."""
    named = f"SUBTEXT_VECTORS_FILE is {file}"
    try:
        return VectorPlan.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise VectorPlanError(f"{named}, which cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        problem = first["msg"].removeprefix("Value error, ")
        raise VectorPlanError(f"{named}: {field or 'keep'}: {problem}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise VectorPlanError(f"{named}, which is no YAML: {error}") from error


def load_key(file: Path) -> WrappingKey:
    """Read the operator's key; VectorPlanError when it cannot be read, is others' to read, or is none."""
    try:
        encoded = read_secret(_KEY_SETTING, file)
        sealing.check_private(file, named=_KEY_SETTING)
        return sealing.parse(encoded, named=f"{_KEY_SETTING} is {file}, which")
    except (SealingError, ValueError) as error:
        raise VectorPlanError(str(error)) from error
