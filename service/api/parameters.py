"""Types of the query and path parameters: bounded, free of control characters, strict about form."""

import datetime as dt
import re
from typing import Annotated, Final

from fastapi import Path
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError

from service.api.paging.cursor import MAX_LENGTH as CURSOR_LENGTH
from service.store.tables import MAX_INDEXED_P_VALUE

# An id has any length, but a URL has not: a longer one is looked up as answers show it.
MAX_REQUEST_ID_LENGTH: Final = 16_384
MAX_NAME_LENGTH: Final = 512
MAX_NOTE_LENGTH: Final = 2000
MAX_WORDS_LENGTH: Final = 200
MAX_LIMIT: Final = 200
_MAX_LAYER: Final = 10_000
# PostgreSQL cannot store NUL, and no name of ours holds any other control character.
PRINTABLE: Final = r"^[^\x00-\x1f\x7f]+$"
_TIME: Final = re.compile(
    r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})", re.ASCII
)
_EARLIEST: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_LATEST: Final = dt.datetime(2200, 1, 1, tzinfo=dt.UTC)


def _as_written(value: object) -> object:
    # Pydantic would also take numbers and dates, which nobody means in a URL.
    if isinstance(value, str) and not _TIME.fullmatch(value):
        raise ValueError(
            "write an RFC 3339 time with its zone, e.g. 2026-11-23T05:00:00Z (+ in a URL is %2B)"
        )
    return value


def _in_utc(value: dt.datetime) -> dt.datetime:
    if not _EARLIEST <= value <= _LATEST:
        raise PydanticCustomError("time_out_of_range", "must lie between 1970 and 2200")
    return value.astimezone(dt.UTC)


def _true_or_false(value: object) -> object:
    if value not in {"true", "false", True, False}:
        raise PydanticCustomError("not_a_truth", "write true or false")
    return value


# A parameter is there or not; JSON's null has no form in a URL, so the description must not offer it.
Absent = SkipJsonSchema[None]
Time = Annotated[AwareDatetime, BeforeValidator(_as_written), AfterValidator(_in_utc)]
Truth = Annotated[bool, BeforeValidator(_true_or_false)]
Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME_LENGTH, pattern=PRINTABLE)]
Note = Annotated[str, Field(min_length=1, max_length=MAX_NOTE_LENGTH, pattern=PRINTABLE)]
# OpenID Connect Core, section 2: `sub` has at most 255 ASCII characters.
Person = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[\x20-\x7e]+$")]
RequestId = Annotated[str, Field(min_length=1, max_length=MAX_REQUEST_ID_LENGTH)]
RequestIdInPath = Annotated[
    str,
    Path(
        min_length=1,
        max_length=MAX_REQUEST_ID_LENGTH,
        description="An id of the audited request: as its client sent it, as vLLM answered it, or as an "
        "answer of this API shows it.",
    ),
]
TraceId = Annotated[
    str,
    Field(
        pattern=r"^[0-9a-f]{32}$",
        description="A W3C trace id: 32 hexadecimal digits in lower case.",
        examples=["0af7651916cd43dd8448eb211c80319c"],
    ),
]
TraceIdInPath = Annotated[
    str,
    Path(
        pattern=r"^[0-9a-f]{32}$",
        description="A W3C trace id: 32 hexadecimal digits in lower case.",
        examples=["0af7651916cd43dd8448eb211c80319c"],
    ),
]
SubjectKey = Annotated[
    str,
    Field(
        pattern=r"^[0-9a-f]{32}$",
        description="A subject key: 32 hexadecimal digits in lower case.",
        examples=["5aedc0a1f3ff2a4e6a1e0f6c7d1f9b22"],
    ),
]
Words = Annotated[str, Field(min_length=1, max_length=MAX_WORDS_LENGTH, pattern=PRINTABLE)]
PValue = Annotated[float, Field(gt=0.0, le=MAX_INDEXED_P_VALUE, allow_inf_nan=False)]
Fidelity = Annotated[float, Field(ge=-1.0, le=1.0, allow_inf_nan=False)]
Layer = Annotated[int, Field(ge=0, le=_MAX_LAYER)]
Cursor = Annotated[str, Field(min_length=1, max_length=CURSOR_LENGTH)]


class Parameters(BaseModel):
    """Query parameters of one operation; any other is refused by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NoParameters(Parameters):
    """For operations that take none."""


class PageParameters(Parameters):
    """What every paged listing takes."""

    limit: int = Field(default=50, ge=1, le=MAX_LIMIT, description="Rows a page.")
    cursor: Cursor | Absent = Field(
        default=None, description="`next_cursor` of the page before, with the same filters."
    )

    def binding(self, listing: str) -> str:
        """Return what a cursor of this listing with these filters is bound to."""
        return listing + self.model_dump_json(exclude={"limit", "cursor"})
