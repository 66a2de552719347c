"""Assign positions to position classes."""

from typing import Any, NamedTuple, get_args

from workers.nla.decoder import GivenFacts, PositionClass

POSITION_CLASSES: tuple[PositionClass, ...] = get_args(PositionClass)


class TemplateIds(NamedTuple):
    """Tokens of the chat template, whose vectors hardly differ between requests and are easy to decode."""

    special: frozenset[int]
    """The tokenizer's special tokens, which belong to the template everywhere."""
    words: frozenset[int]
    """Tokens between the user's words and the answer ("assistant", a line break). They belong to the
    template only in prompts, because the model itself may write them in an answer."""


def template_ids(tokenizer: Any) -> TemplateIds:
    """Return the template's tokens; without a chat template only the special ones."""
    special = frozenset(tokenizer.all_special_ids)
    if not tokenizer.chat_template:
        return TemplateIds(special, frozenset())
    mark = "\u241f"
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": mark}], tokenize=False, add_generation_prompt=True
    )
    after = text.partition(mark)[2]
    return TemplateIds(special, frozenset(tokenizer.encode(after, add_special_tokens=False)))


def position_class(token_id: int, phase: str, template: TemplateIds) -> PositionClass:
    """Return the class of a position from its token and phase.

    The context is ignored, so a line break in the client's words counts as `template`.
    """
    if token_id in template.special or (phase == "prefill" and token_id in template.words):
        return "template"
    return "prompt" if phase == "prefill" else "answer"


def classify(given: GivenFacts, template: TemplateIds) -> list[PositionClass]:
    """Return the class of every position of a batch."""
    return [
        position_class(token_id, phase, template)
        for token_id, phase in zip(given.token_ids, given.phases, strict=True)
    ]
