"""The readings that the pair learns."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.nla.claims import READS, parse_continuation
from workers.training.config import Prompting
from workers.training.data.targets import ReadingWriter, damage_far

AV = '<|im_start|>user\nRead {injection_char} Token:{token}<|im_end|>\n{labels} Expects "'
AR = "<|im_start|>assistant\n{explanation}{token}"
SENTENCE = "A request about sums."


def prompting(**changes: str) -> Prompting:
    return Prompting(**{"injection_char": "Z", "av": AV, "ar": AR, "end": "<|endoftext|>", **changes})


@pytest.fixture(scope="module")
def writer(toy_tokenizer: Any) -> ReadingWriter:
    return ReadingWriter(toy_tokenizer, prompting())


def test_an_answer_quotes_the_exact_tokens_up_to_the_read_one(writer: ReadingWriter) -> None:
    *before, read = writer.encode("What is 1 plus")
    following = writer.encode(" 2")[0]

    example = writer.av_example(SENTENCE, [*before, read], following)

    assert example.answer == [following, *writer.encode(READS), *before, writer.end]
    assert example.answer[example.tail] == before
    assert example.prompt == writer.prompt(read, SENTENCE)


def test_the_prompt_gives_the_read_token_by_its_id(writer: ReadingWriter) -> None:
    behind = writer.encode(f'<|im_end|>\n{SENTENCE} Expects "')

    assert writer.prompt(7, SENTENCE) == [*writer.between, 7, *behind]
    assert writer.decode(writer.before) == "<|im_start|>user\nRead "
    assert writer.decode(writer.between) == " Token:"


def test_a_reading_says_in_text_what_the_answer_says_in_tokens(writer: ReadingWriter) -> None:
    context, following = writer.encode("What is 1 plus"), writer.encode(" 2")[0]

    text = writer.true_text(SENTENCE, context, following)
    answer = writer.av_example(SENTENCE, context, following).answer

    said = parse_continuation(writer.decode(writer.cut(answer)))
    assert said is not None
    assert text == f'{SENTENCE} Expects "{said.expects}". Reads "{said.quote}'
    assert said.expects == writer.decode([following])


def test_the_reconstructor_reads_at_the_token_itself(writer: ReadingWriter) -> None:
    ids = writer.ar_ids("some text", 9)

    assert ids == [*writer.encode("<|im_start|>assistant\nsome text"), 9]


def test_special_tokens_stay_the_tokens_that_they_are(writer: ReadingWriter, toy_tokenizer: Any) -> None:
    turn = toy_tokenizer.convert_tokens_to_ids("<|im_start|>")
    context = [turn, *writer.encode("user"), 7]

    example = writer.av_example(SENTENCE, context, turn)
    ids = writer.ar_ids(writer.true_text(SENTENCE, context, turn), 7)

    assert example.answer[0] == turn
    assert example.answer[example.tail][0] == turn
    assert ids.count(turn) == 3


def test_near_words_weigh_more_than_far_ones_and_white_space_little(writer: ReadingWriter) -> None:
    blank = writer.encode("\n")[0]
    words = writer.encode("What is 1 plus 2")

    example = writer.av_example(SENTENCE, [*words, blank, 7], words[0])

    tail = example.weights[example.tail]
    assert len(example.weights) == len(example.answer)
    assert tail[:-1] == sorted(tail[:-1])
    assert tail[-1] < tail[-2]
    assert example.weights[0] > max(example.weights[1 : example.tail.start])


def test_an_answer_is_cut_at_its_end_and_gives_back_its_quote(writer: ReadingWriter) -> None:
    context, following = writer.encode("What is 1 plus"), writer.encode(" 2")[0]
    answer = writer.av_example(SENTENCE, context, following).answer

    assert writer.cut([*answer, 3, 4]) == answer[:-1]
    assert writer.cut([3, 4]) == [3, 4]
    assert writer.tail_of(writer.cut(answer)) == context[:-1]
    assert writer.tail_of([following, 3, 4, 5, 6, 7]) is None
    assert writer.tail_of([]) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"av": AV.replace("{labels}", "")},
        {"av": AV.replace("{token}", "")},
        {"ar": "{token}{explanation}"},
        {"ar": "{explanation}{token} "},
        {"end": "two tokens"},
    ],
)
def test_prompts_that_lack_what_a_reading_needs_are_refused(
    changes: dict[str, str], toy_tokenizer: Any
) -> None:
    with pytest.raises(ValueError, match="prompting"):
        ReadingWriter(toy_tokenizer, prompting(**changes))


@given(damage=st.floats(0, 1), seed=st.integers(0, 99))
def test_damage_keeps_the_read_token_and_takes_words_from_the_vocabulary(damage: float, seed: int) -> None:
    context = np.arange(12)

    damaged = damage_far(context, np.array([50, 51]), damage, np.random.default_rng(seed))

    assert damaged[-1] == context[-1]
    assert set(damaged[damaged != context].tolist()) <= {50, 51}


def test_damage_is_the_likelier_the_farther_from_the_read_token() -> None:
    rng = np.random.default_rng(0)
    context = np.arange(12)

    hits = sum(damage_far(context, np.array([50]), 0.3, rng) != context for _ in range(400))

    assert hits[-1] == 0
    assert hits[-2] < hits[-5] < hits[-8]
    assert hits[0] / 400 == pytest.approx(0.8, abs=0.1)
