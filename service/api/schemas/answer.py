"""What every answer shares."""

import uuid
from collections.abc import Collection
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from service.store.base import Base, OfActor


class Answer(BaseModel):
    """Base of everything answered."""

    model_config = ConfigDict(frozen=True, from_attributes=True)


class Attribution(Answer):
    """Who did what the answer tells: an API key, or a person whom an issuer named."""

    key_id: uuid.UUID | None = Field(description="The API key that did it; null for a person.")
    key_name: str | None = Field(description="The key's name at that time.", examples=["night shift"])
    session_id: uuid.UUID | None = Field(
        description="The session in which it was done; null for a key that was sent itself."
    )
    issuer: str | None = Field(
        description="Who says who the person is; null for a key.", examples=["https://login.example.com"]
    )
    person: str | None = Field(
        description="Who signed in and did it, by the issuer's `sub`; null for a key.",
        examples=["248289761001"],
    )

    @staticmethod
    def names(row: OfActor) -> dict[str, Any]:
        """Return the fields of a stored row."""
        return {name: getattr(row, name) for name in Attribution.model_fields}


class Ratio(Answer):
    """A ratio with its parts."""

    numerator: int = Field(examples=[118])
    denominator: int = Field(examples=[120])
    value: float | None = Field(description="Null when the denominator is 0.", examples=[0.983])

    @classmethod
    def of(cls, numerator: int, denominator: int) -> "Ratio":
        """Return the ratio; without a denominator it has no value."""
        value = numerator / denominator if denominator else None
        return cls(numerator=numerator, denominator=denominator, value=value)


def stored(answer: type[Answer], table: type[Base]) -> Collection[str]:
    """Return the fields that an answer has from a table, under the name that they have there."""
    return answer.model_fields.keys() & table.__table__.columns.keys()


def part(row: Base, names: Collection[str]) -> dict[str, Any]:
    """Return these values of a row, by column; the row is loaded.

    They are read past SQLAlchemy's attributes, which are functions: a page has ten thousand of them.
    """
    loaded = row.__dict__
    return {name: loaded[name] for name in names}
