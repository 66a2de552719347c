"""Prompts for live chats that were not trained on: the demo's, and a run's held-out ones; pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from workers.training.config import Activations
from workers.training.data import positions

Chats = Sequence[Mapping[str, Any]]
"""Lines of a run's chats.jsonl."""


class Ask(NamedTuple):
    """One request to send."""

    text: str
    tokens: list[int]
    """The token ids that the server must compute for the prompt."""
    is_real: bool


def to_ask(text: str, tokenizer: Any, *, is_real: bool) -> Ask:
    """Return a prompt with its tokens under the tokenizer's chat template."""
    turn = [{"role": "user", "content": text}]
    tokens = tokenizer.apply_chat_template(
        turn, tokenize=True, add_generation_prompt=True, return_dict=False
    )
    return Ask(text, list(tokens), is_real)


def held_out(chats: Chats, tokenizer: Any, config: Activations) -> list[Ask]:
    """Return the prompts of a run's held-out chats, decoded from their tokens.

    Prompts whose text does not encode to the same tokens are left out.
    """
    mark = "\u241f"
    turn = [{"role": "user", "content": mark}]
    rendered = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    before, _, after = rendered.partition(mark)
    asks = []
    for chat in chats:
        tokens = _prompt(chat)
        if positions.split_of(tokens, config) != "held_out":
            continue
        whole = tokenizer.decode(tokens, skip_special_tokens=False)
        text = whole.removeprefix(before).removesuffix(after)
        ask = to_ask(text, tokenizer, is_real=chat["origin"] == "real")
        if ask.tokens == tokens:
            asks.append(ask)
    return asks


def unseen(asks: Iterable[Ask], chats: Chats, config: Activations) -> list[Ask]:
    """Return the distinct prompts that a run neither trained nor calibrated on."""
    prompts = [_prompt(chat) for chat in chats]
    seen = {tuple(tokens) for tokens in prompts if positions.split_of(tokens, config) != "held_out"}
    distinct = {tuple(ask.tokens): ask for ask in asks}
    return [ask for tokens, ask in distinct.items() if tokens not in seen]


def _prompt(chat: Mapping[str, Any]) -> list[int]:
    return list(chat["tokens"][: chat["prompt_tokens"]])
