"""Which kind of position a vector was read at; pure."""

from collections.abc import Collection
from typing import get_args

from workers.nla.decoder import Given, PositionClass

POSITION_CLASSES: tuple[PositionClass, ...] = get_args(PositionClass)


def position_class(token_id: int, phase: str, special_ids: Collection[int]) -> PositionClass:
    """Tell special tokens, the client's words (`prefill`) and the model's own (`decode`) apart."""
    if token_id in special_ids:
        return "template"
    return "prompt" if phase == "prefill" else "answer"


def classify(given: Given, special_ids: Collection[int]) -> list[PositionClass]:
    """Return the class of every position of a batch."""
    return [
        position_class(token_id, phase, special_ids)
        for token_id, phase in zip(given.token_ids, given.phases, strict=True)
    ]
