"""What every answer shares."""

from pydantic import BaseModel, ConfigDict, Field


class Answer(BaseModel):
    """Base of everything answered."""

    model_config = ConfigDict(frozen=True, from_attributes=True)


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
