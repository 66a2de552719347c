"""What was not looked at, as answered."""

from pydantic import Field

from service.api.schemas.answer import Answer


class BlindSpot(Answer):
    """Something that these figures cannot see."""

    code: str = Field(description="Stable name.", examples=["prefix_cached"])
    detail: str = Field(description="The same in plain words.")
    count: int | None = Field(
        description="How many requests or rows it was within the range; null where nobody can count it.",
        examples=[12],
    )
