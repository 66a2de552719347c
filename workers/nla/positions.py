"""Which kind of position a vector was read at."""

from typing import Any, NamedTuple, get_args

from workers.nla.decoder import GivenFacts, PositionClass

POSITION_CLASSES: tuple[PositionClass, ...] = get_args(PositionClass)


class TemplateIds(NamedTuple):
    """Tokens of the chat template. Their vectors are much alike in every request, and easily read."""

    special: frozenset[int]
    """The tokenizer's special tokens: of the template wherever they stand."""
    words: frozenset[int]
    """What stands between the user's words and the answer ("assistant", a line break): of the template in
    prompts only, because the model itself may write them for another reason."""


def template_ids(tokenizer: Any) -> TemplateIds:
    """Read them off the tokenizer and its chat template, which may be missing."""
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
    """Tell the chat template, the client's words (`prefill`) and the model's own (`decode`) apart.

    The token alone decides, so a line break in a client's words counts as the template's.
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
