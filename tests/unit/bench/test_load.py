"""An answer counts only when it is whole."""

import json

import pytest

from bench.load import Answer, LoadError
from bench.traffic import ChatRequest

TURN = ChatRequest(text="one", answer_tokens=2)


def event(document: object) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def piece(text: str) -> bytes:
    return event({"id": "x", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]})


USAGE = event({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}})
DONE = b"data: [DONE]\n\n"


def test_an_answer_is_timed_by_its_pieces_of_text_however_the_network_cuts_them() -> None:
    stream = piece("") + piece("Hello") + piece(" you") + USAGE + DONE
    answer = Answer()

    for now, first in enumerate(range(0, len(stream), 7)):
        answer.feed(stream[first : first + 7], float(now))

    answer.check(TURN)
    assert len(answer.times) == 2
    assert 0 < answer.times[0] < answer.times[1]


def test_what_a_tool_adds_at_the_end_belongs_to_the_answer_and_is_no_token() -> None:
    answer = Answer()

    answer.feed(piece("a") + piece("b") + USAGE + event({"activations": {"data": "AAAA"}}) + DONE, 1.0)

    answer.check(TURN)
    assert len(answer.times) == 2


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (piece("a") + USAGE, "cut off"),
        (piece("a") + DONE, "got 0"),
        (USAGE + DONE, "ended"),
    ],
)
def test_an_answer_that_is_not_whole_ends_the_benchmark(stream: bytes, message: str) -> None:
    answer = Answer()

    answer.feed(stream, 1.0)

    with pytest.raises(LoadError, match=message):
        answer.check(TURN)
