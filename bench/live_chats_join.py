"""Join captured rows to their chats; pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from subtext_sidecar.contract.record import Record
from workers.training.data.collect import Chat

LEFT_OUT: Final = ("another client's", "redelivered", "chosen by the screen alone", "too early in the chat")
"""Reasons for leaving out a row of the stream."""


class JoinError(ValueError):
    """A row contradicts its chat; the message says where."""


class LiveChat(NamedTuple):
    """A chat as the server processed it."""

    tokens: list[int]
    """Prompt and answer."""
    prompt_tokens: int
    is_real: bool
    """Whether the prompt comes from a real user."""


class JoinedChats(NamedTuple):
    """Chats with their captured positions."""

    chats: list[Chat]
    """Chats with rows, in sending order; `document` is the index among all sent chats."""
    vectors: list[NDArray[np.float32]]
    """Each chat's rows, in the order of `chosen`."""
    left_out: Counter[str]
    """Number of rows left out, by reason."""


def join(
    records: Iterable[Record], chats: Mapping[str, LiveChat], *, model: str, layer: int, tail_tokens: int
) -> JoinedChats:
    """Join records to `chats`, which are keyed by request id in sending order.

    As in training, rows with fewer than `tail_tokens` tokens of context are left out. Rows chosen only by
    the screen are left out because they are not a random sample. Raises JoinError for a row of another
    model or layer, or with a token that its chat does not have at that position.
    """
    rows_by_chat: dict[str, dict[int, NDArray[np.float32]]] = {name: {} for name in chats}
    left_out: Counter[str] = Counter()
    stranger, again, screened, early = LEFT_OUT
    for record in records:
        header = record.header
        chat = chats.get(header.request.request_id)
        if chat is None:
            left_out[stranger] += 1
            continue
        if (header.model, header.layer) != (model, layer):
            raise JoinError(
                f"{header.request.request_id}: a row of {header.model} at layer {header.layer}, expected"
                f" {model} at layer {layer}"
            )
        _check_token(header.request.request_id, chat.tokens, header.position, header.token_id)
        rows = rows_by_chat[header.request.request_id]
        if header.position in rows:
            left_out[again] += 1
        elif not header.baseline_probability:
            left_out[screened] += 1
        elif header.position + 1 < tail_tokens:
            left_out[early] += 1
        else:
            rows[header.position] = record.values()
    return _ordered(chats, rows_by_chat, left_out)


def _check_token(request_id: str, tokens: Sequence[int], position: int, token_id: int) -> None:
    there = tokens[position] if position < len(tokens) else None
    if there != token_id:
        raise JoinError(
            f"{request_id}: the row at position {position} is of token {token_id}, but the chat has {there}"
        )


def _ordered(
    chats: Mapping[str, LiveChat],
    rows_by_chat: Mapping[str, Mapping[int, NDArray[np.float32]]],
    left_out: Counter[str],
) -> JoinedChats:
    joined = JoinedChats([], [], left_out)
    for document, (name, chat) in enumerate(chats.items()):
        chosen = sorted(rows_by_chat[name])
        if chosen:
            joined.chats.append(Chat(chat.tokens, chat.prompt_tokens, chat.is_real, document, chosen))
            joined.vectors.append(np.stack([rows_by_chat[name][position] for position in chosen]))
    return joined
