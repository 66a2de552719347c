"""The explanations that the pair learns."""

from pathlib import Path
from typing import Any

import pytest

from workers.training.config import Targets
from workers.training.targets import WEIGHTS, Facts, TargetWriter


@pytest.fixture
def tokenizer(toy_home: Path) -> Any:
    import transformers

    return transformers.AutoTokenizer.from_pretrained(toy_home / "models" / "toy")


def facts(context: list[int], next_tokens: list[int], kinds: tuple[str, ...] = ()) -> Facts:
    return Facts(context, next_tokens, "an answer", "sums", kinds)


def test_a_target_is_a_sentence_on_the_token_and_one_on_the_text(tokenizer: Any) -> None:
    what, plus, why = (tokenizer.encode(word)[0] for word in ("What", " plus", " why"))

    target = TargetWriter(tokenizer, Targets()).write(
        facts([what, plus], [why, what, plus], ("code", "fraud"))
    )

    assert target.text == (
        'It has read " plus" after "What" and expects " why", "What" or " plus". '
        "This is an answer about sums, touching on code and fraud."
    )


def test_special_tokens_and_line_breaks_are_quoted_in_plain_characters(tokenizer: Any) -> None:
    newline, end = tokenizer.encode("\n")[0], tokenizer.eos_token_id

    target = TargetWriter(tokenizer, Targets()).write(facts([end, newline], [end, newline, newline]))

    assert target.text.startswith('It has read "\\n" after "[im_end]" and expects "[im_end]", "\\n" or')
    assert end not in target.ids


def test_every_token_has_a_kind_and_the_message_outweighs_the_frame(tokenizer: Any) -> None:
    ids = tokenizer.encode("What is one plus two")

    target = TargetWriter(tokenizer, Targets()).write(facts(ids, ids[:3]))

    assert len(target.ids) == len(target.kinds)
    assert [token for token, kind in zip(target.ids, target.kinds, strict=True) if kind == "last"] == ids[
        -1:
    ]
    assert WEIGHTS["last"] > WEIGHTS["topic"] > WEIGHTS["text"] > WEIGHTS["frame"]


def test_a_wrapped_target_carries_the_official_tags_and_ends_the_turn(tokenizer: Any) -> None:
    ids = tokenizer.encode("What is one")
    writer = TargetWriter(tokenizer, Targets())

    wrapped = writer.wrap(writer.write(facts(ids, ids[:3])))

    assert wrapped.text.startswith("<explanation>It has read")
    assert wrapped.ids[-1] == tokenizer.eos_token_id
    assert len(wrapped.ids) == len(wrapped.kinds)
