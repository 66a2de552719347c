"""From prompts to the activations that the plugin would sample of them, through the audited model."""

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from workers.calibrate.summary import Vectors
from workers.judge.probes import ProbeError
from workers.probe.fit import Requests
from workers.probe.prompts import Chat, Prompts
from workers.training.data.activations import ActivationReader
from workers.training.data.chats import Writer

_READ_TOGETHER = 16
Log = Callable[[str], None]


class Sampling(NamedTuple):
    """Which positions of a request are taken; the names are those of the capture policy."""

    prompt_window: int
    decode_stride: int
    window: int
    skip_first: int
    answer_tokens: int
    """Longest answer that the model writes; 0: only the prompt is read."""


class Sampled(NamedTuple):
    """A chat as the model saw it."""

    tokens: list[int]
    positions: list[int]
    words: int
    """Tokens of the prompt without the chat template."""


def choose_positions(
    prompt_tokens: int, total_tokens: int, sampling: Sampling, *, offset: int
) -> list[int]:
    """Return the positions that the capture policy takes of a request, ascending; pure.

    The last ``prompt_window`` tokens of the prompt, and in every ``decode_stride`` tokens of the answer
    ``window`` adjacent ones from ``offset`` on. The answer's last token is never computed.
    """
    first = max(sampling.skip_first, prompt_tokens - sampling.prompt_window)
    answer = range(max(sampling.skip_first, prompt_tokens), total_tokens - 1)
    return [
        *range(first, prompt_tokens),
        *(
            place
            for place in answer
            if (place - prompt_tokens - offset) % sampling.decode_stride < sampling.window
        ),
    ]


def sample(
    chats: Sequence[Chat], tokenizer: Any, writer: Writer | None, sampling: Sampling, *, seed: int
) -> list[Sampled]:
    """Have the chats answered and choose positions; without a writer only the prompts are read.

    Raises ProbeError for a prompt of which nothing is sampled.
    """
    starts = [
        tokenizer.apply_chat_template(
            chat.turns, tokenize=True, add_generation_prompt=True, return_dict=False
        )
        for chat in chats
    ]
    answers: Iterable[Sequence[int]] = (
        [()] * len(starts)
        if writer is None
        else writer.write(starts, max_new_tokens=sampling.answer_tokens, temperature=1.0, seed=seed)
    )
    rng = random.Random(seed)  # noqa: S311  # a choice of data, not a secret
    found = []
    for chat, start, answer in zip(chats, starts, answers, strict=True):
        tokens = [*start, *answer]
        places = choose_positions(
            len(start), len(tokens), sampling, offset=rng.randrange(sampling.decode_stride)
        )
        if not places:
            raise ProbeError(
                f"prompt-window: nothing is sampled of {chat.text[:40]!r}; give a larger one, a smaller"
                " --skip-first, or --answer-tokens"
            )
        found.append(Sampled(tokens, places, len(tokenizer.encode(chat.text, add_special_tokens=False))))
    return found


def read(
    prompts: Prompts,
    sampled: Sequence[Sampled],
    reader: ActivationReader,
    benign: Sequence[Vectors],
    *,
    log: Log,
) -> Requests:
    """Return the requests' vectors at their positions; ``sampled`` has the positives first.

    ``benign`` requests, of which only vectors are known, come last.
    """
    by_request: dict[int, Any] = {}
    # By length, so that little is padded.
    order = sorted(range(len(sampled)), key=lambda number: len(sampled[number].tokens))
    for start in range(0, len(order), _READ_TOGETHER):
        portion = order[start : start + _READ_TOGETHER]
        chosen = [sampled[number] for number in portion]
        readings = reader.read([one.tokens for one in chosen], [one.positions for one in chosen])
        by_request |= {number: one.vectors for number, one in zip(portion, readings, strict=True)}
        log(f"reading activations: {start + len(portion)} of {len(order)}")
    rows = [by_request[number] for number in range(len(sampled))]
    documents = [np.full(len(one), number) for number, one in enumerate(rows)]
    count = len(sampled)
    for one in benign:
        if one.rows.shape[1] != rows[0].shape[1]:
            raise ProbeError(
                f"benign: vectors have {one.rows.shape[1]} entries, the model has {rows[0].shape[1]}; take"
                " vectors of this model"
            )
        names, numbers = np.unique(one.documents, return_inverse=True)
        rows.append(one.rows)
        documents.append(numbers + count)
        count += len(names)
    texts = [chat.text for chat in (*prompts.positive, *prompts.negative)]
    rest = count - len(texts)
    return Requests(
        np.concatenate(rows).astype(np.float32),
        np.concatenate(documents).astype(np.int64),
        np.arange(count) < len(prompts.positive),
        [*texts, *[None] * rest],
        np.array([*(one.words for one in sampled), *[0] * rest], np.int64),
    )
