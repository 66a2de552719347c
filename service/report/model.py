"""What a report consists of. A figure cannot be made without its denominator or its interval."""

import datetime as dt
from collections.abc import Sequence
from typing import Self

from pydantic import Field, model_validator

from service.api.schemas.answer import Answer


class Bounds(Answer):
    """An interval of a share."""

    lower: float | None = Field(description="None: the interval is one-sided.")
    upper: float | None
    confidence: float


class Figure(Answer):
    """One number with what it is a part of, or why there is none, and the query that gives it."""

    label: str
    value: float | None = Field(description="A share, or seconds where `unit` says so; None: see `absent`.")
    unit: str = "share"
    numerator: int | None = None
    denominator: int | None = None
    of: str = Field(description="What the denominator counts.")
    interval: Bounds | None = None
    absent: str | None = Field(default=None, description="Why there is no number.")
    query: str

    @model_validator(mode="after")
    def _is_honest(self) -> Self:
        if self.value is None and self.absent is None:
            raise ValueError(f"{self.label}: say why there is no number")
        if self.value is not None and self.denominator is None:
            raise ValueError(f"{self.label}: give the denominator")
        return self

    @property
    def text(self) -> str:
        """The figure as people read it."""
        if self.value is None:
            return self.absent or ""
        if self.unit == "seconds":
            return f"{_duration(self.value)} (n = {_count(self.denominator)} {self.of})"
        share = f"{100 * self.value:.4g}%"
        parts = "" if self.numerator is None else f"{_count(self.numerator)} "
        return f"{share} ({parts}of {_count(self.denominator)} {self.of}){self._bounds()}"

    def _bounds(self) -> str:
        if self.interval is None:
            return ""
        level = f"{100 * self.interval.confidence:g}%"
        if self.interval.lower is None:
            return f"; at most {100 * (self.interval.upper or 0):.3g}% (one-sided {level})"
        lower, upper = 100 * self.interval.lower, 100 * (self.interval.upper or 0)
        return f"; {level} interval {lower:.3g}% to {upper:.3g}%"


class Table(Answer):
    """Rows that belong together; the denominators stand beside their parts."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    query: str


class Section(Answer):
    """One heading with what is known under it."""

    heading: str
    text: str
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()


class Report(Answer):
    """The whole report."""

    title: str
    model: str | None = Field(description="None: all models.")
    start: dt.datetime = Field(serialization_alias="from")
    end: dt.datetime = Field(serialization_alias="to")
    as_of: dt.datetime
    version: str
    headings: str = Field(description="Where the headings come from.")
    sections: Sequence[Section]


def share(
    label: str, numerator: int, denominator: int, of: str, query: str, *, interval: Bounds | None = None
) -> Figure:
    """Return the figure of a share; without anything to count it says so."""
    known = denominator > 0
    return Figure(
        label=label,
        value=numerator / denominator if known else None,
        numerator=numerator if known else None,
        denominator=denominator if known else None,
        of=of,
        interval=interval if known else None,
        absent=None if known else f"not known: 0 {of}",
        query=query,
    )


def absent(label: str, why: str, query: str) -> Figure:
    """Return what a figure is put down as that this version or this period does not have."""
    return Figure(label=label, value=None, of="", absent=why, query=query)


def _count(number: int | None) -> str:
    return f"{number or 0:,}"


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"
