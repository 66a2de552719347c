"""Exports as asked for and as answered."""

import datetime as dt
import uuid
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from service.api.parameters import Name, Time
from service.api.schemas.answer import Answer, Attribution
from service.api.vocabulary import AccessPurpose, ExportKind, ExportState, RowFormat
from service.evidence.bundle import layout
from service.store.exports.tables import Export as Row

_MOST = 2**53 - 1


def _without_repeats(kinds: list[ExportKind]) -> list[ExportKind]:
    if len(set(kinds)) < len(kinds):
        raise ValueError("name each kind once")
    return kinds


class ExportRequest(BaseModel):
    """What to put into a bundle."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kinds: Annotated[list[ExportKind], AfterValidator(_without_repeats)] = Field(
        min_length=1,
        max_length=len(ExportKind.__args__),  # type: ignore[attr-defined]  # a Literal when it runs
        description="Whose rows; each needs the scope that reading them needs. Decoders, definitions of"
        " concepts, tombstones of what was erased, coverage and configurations of the period are always"
        " in it; `configurations` has these as rows that open entries of the log, `retention` has for how"
        " long rows are kept, legal holds with their lifts, and deletion certificates.",
        examples=[["explanations", "flags"]],
        json_schema_extra={"uniqueItems": True},
    )
    model: Name | None = Field(
        default=None, description="Served name of the one model; default: all that the key reads."
    )
    start: Time = Field(
        alias="from", description="Start of the period in which entries were logged, inclusive."
    )
    end: Time = Field(
        alias="to",
        description="Its end, exclusive: at least ten minutes ago, since until then entries of it may still"
        " come, and at most 366 days after its start.",
    )
    format: RowFormat = Field(
        default=layout.RowFormat.NDJSON,
        description="Of the rows: `ndjson`, a JSON object in a line, or `parquet`, a file for each kind,"
        " with typed columns beside the text that a row's entry commits to.",
    )
    with_text: bool = Field(
        default=False,
        description="Whether explanations have their text and tokens. It needs `explanations:read_text` and"
        " a stated purpose, and each text is entered in the access log. Without it the entries of"
        " explanations cannot be opened: the sealed manifest alone speaks for them.",
    )
    earlier_size: int | None = Field(
        default=None,
        ge=1,
        le=_MOST,
        description="Size of a checkpoint that was kept from before: the bundle proves that its log grew"
        " out of it.",
        examples=[1041],
    )


class Export(Attribution):
    """One export: what was asked for, by whom, and what became of it."""

    id: uuid.UUID
    state: ExportState = Field(
        description="`waiting`, `running`, `ready` to be downloaded, `failed`, `expired`, or `erased`"
        " because something in it was.",
        examples=["ready"],
    )
    kinds: list[ExportKind] = Field(description="Whose rows.", examples=[["explanations", "flags"]])
    model: str | None = Field(description="The one model; null: all that the key read.")
    start: dt.datetime = Field(serialization_alias="from", description="Start of the period, inclusive.")
    end: dt.datetime = Field(serialization_alias="to", description="End of the period, exclusive.")
    format: RowFormat = Field(description="Of the rows.", examples=["ndjson"])
    with_text: bool = Field(description="Whether it has texts and tokens.")
    earlier_size: int | None = Field(description="Size of the checkpoint that its log grew out of.")
    purpose: AccessPurpose | None = Field(description="Why, as the caller said.", examples=["audit"])
    requested_at: dt.datetime
    finished_at: dt.datetime | None = Field(description="When it was ready, failed or erased.")
    expires_at: dt.datetime | None = Field(description="When its file is deleted; null before it is ready.")
    bytes: int | None = Field(description="Length of its file; null before it is ready.", examples=[48213])
    sha256: str | None = Field(description="SHA-256 of its file, in hexadecimal; also its ETag.")
    rows: int | None = Field(description="Rows in it.", examples=[311])
    entries_withheld: int | None = Field(
        description="Entries of the period and of these kinds without a row in it; the bundle names each"
        " with the reason.",
        examples=[0],
    )
    problem: str | None = Field(description="Why it failed, as a code.", examples=["log_not_signed"])


class ExportPage(Answer):
    """One page of exports, newest first."""

    items: list[Export]
    next_cursor: str | None = Field(description="Pass it as `cursor` for the next page; null on the last.")


def export(row: Row) -> Export:
    """Return a stored export as it is answered."""
    own = {"model", "start", "end", "entries_withheld"}
    same = set(Export.model_fields) - own
    return Export.model_validate(
        {name: getattr(row, name) for name in same}
        | {"model": row.of_model, "start": row.period_start, "end": row.period_end}
        | {"entries_withheld": row.withheld}
    )
