import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest
import transformers

from workers.training import chats, collect
from workers.training.config import Sampled


@pytest.fixture
def tokenizer(toy_home: Path) -> transformers.PreTrainedTokenizerFast:
    return transformers.AutoTokenizer.from_pretrained(str(toy_home / "models" / "toy"))


class CountingWriter:
    """Writes the same prompt twice, then a new one; every third is cut off."""

    def __init__(self, tokenizer: transformers.PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._numbers = itertools.count()
        self.starts: list[Sequence[int]] = []

    def write(
        self, starts: Sequence[chats.TokenIds], *, max_new_tokens: int, temperature: float
    ) -> list[list[int]]:
        assert max_new_tokens > 0
        assert temperature > 0
        self.starts += starts
        return [self._one(next(self._numbers)) for _ in starts]

    def _one(self, number: int) -> list[int]:
        ids = list(self._tokenizer.encode(f"What is {number // 2} and why?", add_special_tokens=False))
        return ids if number % 3 == 0 else [*ids, self._tokenizer.eos_token_id]


def test_sampled_prompts_are_distinct_whole_and_as_many_as_asked(
    tokenizer: transformers.PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    writer = CountingWriter(tokenizer)

    found = collect.sample_prompts(
        Sampled(count=100),
        writer,
        tokenizer,
        max_bytes=100,
        path=tmp_path / "sampled.jsonl",
        log=lambda _: None,
    )

    assert found == [f"What is {number} and why?" for number in range(100)]
    assert tokenizer.decode(writer.starts[0]) == "<|im_start|>user\n"
