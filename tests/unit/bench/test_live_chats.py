"""Live chats: which row belongs to which chat, and which prompts no training saw."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.live_chats import choose, main, parse_options, read
from bench.live_chats_join import LEFT_OUT, JoinedChats, JoinError, LiveChat, join
from bench.live_chats_prompts import Ask, held_out, to_ask, unseen
from subtext_sidecar.contract.record import Record
from tests.support.live import LAYER, MODEL, WIDTH, make
from tests.support.nla import families
from workers.training.config import Activations
from workers.training.data import activations
from workers.training.data.collect import Chat
from workers.training.data.positions import split_of

CHATS = {
    "first": LiveChat([10, 11, 12, 13, 14, 15], 4, is_real=False),
    "silent": LiveChat([20, 21], 1, is_real=False),
    "last": LiveChat([30, 31, 32, 33], 2, is_real=True),
}
SHARES = Activations(held_out_share=0.3, calibration_share=0.2)


def joined(*records: Record, tail_tokens: int = 3) -> JoinedChats:
    return join(records, CHATS, model=MODEL, layer=LAYER, tail_tokens=tail_tokens)


def test_rows_come_to_their_chats_in_order_whatever_order_they_came_in() -> None:
    found = joined(make("last", 3, 33), make("first", 5, 15), make("first", 2, 12))

    assert [(chat.document, chat.chosen, chat.is_real) for chat in found.chats] == [
        (0, [2, 5], False),
        (2, [3], True),
    ]
    assert [vectors.tolist() for vectors in found.vectors] == [
        [[3.0] * WIDTH, [6.0] * WIDTH],
        [[4.0] * WIDTH],
    ]
    assert not found.left_out


def test_what_is_left_out_is_counted() -> None:
    stranger, again, screened, early = LEFT_OUT

    found = joined(
        make("first", 4, 14),
        make("first", 4, 14),
        make("first", 3, 13, baseline_probability=0.0),
        make("first", 1, 11),
        make("somebody", 4, 1, layer=LAYER + 1),
    )

    assert found.left_out == {stranger: 1, again: 1, screened: 1, early: 1}
    assert [chat.chosen for chat in found.chats] == [[4]]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (make("first", 4, 13), "position 4 is of token 13, but the chat has 14"),
        (make("silent", 9, 1), "position 9 is of token 1, but the chat has None"),
        (make("first", 4, 14, layer=LAYER + 1), "at layer 4, expected audited at layer 3"),
        (make("first", 4, 14, model="other"), "a row of other"),
    ],
)
def test_a_row_that_contradicts_its_chat_ends_the_capture(row: Record, message: str) -> None:
    with pytest.raises(JoinError, match=message):
        joined(row)


def test_next_tokens_are_the_models_own_and_vectors_those_of_the_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Reader:
        def __init__(self, model: str, *, layer: int) -> None:
            assert (model, layer) == ("model", LAYER)

        def read(self, chats: list[list[int]], chosen: list[list[int]]) -> list[activations.ChatReading]:
            return [
                activations.ChatReading(
                    np.eye(len(places), WIDTH, dtype=np.float32),
                    np.array([[tokens[0], 8, 9]] * len(places)),
                )
                for tokens, places in zip(chats, chosen, strict=True)
            ]

    monkeypatch.setattr(activations, "ActivationReader", Reader)
    found = joined(*(make("first", place, 10 + place) for place in (2, 5)), make("last", 3, 33))

    samples, cosines = read(found, Path("model"), layer=LAYER, tail_tokens=3)

    assert samples.context.tolist() == [[10, 11, 12], [13, 14, 15], [31, 32, 33]]
    assert samples.next_tokens[:, 0].tolist() == [10, 10, 30]
    assert samples.vectors[:, 0].tolist() == [3, 6, 4]
    assert samples.is_answer.tolist() == [0, 1, 1]
    assert samples.is_real.tolist() == [0, 0, 1]
    assert samples.documents.tolist() == [0, 0, 2]
    assert cosines == pytest.approx([0.5, 0.5, 0.5])


def test_many_chats_are_read_portion_by_portion(monkeypatch: pytest.MonkeyPatch) -> None:
    class Reader:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def read(self, chats: list[list[int]], _: list[list[int]]) -> list[activations.ChatReading]:
            return [
                activations.ChatReading(np.full((1, WIDTH), chat[0], np.float32), np.array([chat[:1] * 3]))
                for chat in chats
            ]

    monkeypatch.setattr(activations, "ActivationReader", Reader)
    chats = [Chat([number, 0, 0], 2, is_real=False, document=number, chosen=[2]) for number in range(1, 41)]
    vectors = [np.full((1, WIDTH), number, np.float32) for number in range(1, 41)]

    samples, _ = read(JoinedChats(chats, vectors, joined().left_out), Path("model"), layer=1, tail_tokens=3)

    assert samples.next_tokens[:, 0].tolist() == samples.vectors[:, 0].tolist() == list(range(1, 41))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return families.write_tokenizer(families.QWEN2, tmp_path_factory.mktemp("tokenizer"))


def run_of(tokenizer: Any) -> list[dict[str, Any]]:
    """A run's chats, half of them of people."""
    asks = [
        to_ask(f"Tell me about number {number}.", tokenizer, is_real=bool(number % 2))
        for number in range(60)
    ]
    return [
        {
            "origin": "real" if ask.is_real else "sets",
            "prompt_tokens": len(ask.tokens),
            "tokens": [*ask.tokens, 5],
        }
        for ask in asks
    ]


def test_held_out_prompts_come_back_as_they_were_sent(tokenizer: Any) -> None:
    chats = run_of(tokenizer)

    asks = held_out(chats, tokenizer, SHARES)

    wanted = [chat for chat in chats if split_of(chat["tokens"][:-1], SHARES) == "held_out"]
    assert 5 < len(asks) == len(wanted) < 40
    assert [ask.tokens for ask in asks] == [chat["tokens"][:-1] for chat in wanted]
    assert [ask.is_real for ask in asks] == [chat["origin"] == "real" for chat in wanted]
    assert all(ask.text.startswith("Tell me about number ") for ask in asks)


def test_a_prompt_that_does_not_come_back_as_its_tokens_is_left_out(tokenizer: Any) -> None:
    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False))

    before, after = encode("<|im_start|>user\n"), encode("<|im_end|>\n<|im_start|>assistant\n")
    # The same words, letter by letter.
    spelled = [
        [*before, *(token for letter in f"Summary {number}" for token in encode(letter)), *after]
        for number in range(20)
    ]
    chats = [{"origin": "sets", "prompt_tokens": len(ids), "tokens": ids} for ids in spelled]

    assert any(split_of(ids, SHARES) == "held_out" for ids in spelled)
    assert tokenizer.decode(spelled[3]) == tokenizer.decode(
        to_ask("Summary 3", tokenizer, is_real=False).tokens
    )
    assert held_out(chats, tokenizer, SHARES) == []


def test_what_a_run_trained_or_calibrated_on_is_not_asked_again(tokenizer: Any) -> None:
    chats = run_of(tokenizer)
    everything = [Ask("", chat["tokens"][:-1], is_real=False) for chat in chats]
    new = to_ask("Something else", tokenizer, is_real=False)

    asks = unseen([*everything, new, new], chats, SHARES)

    assert [split_of(ask.tokens, SHARES) for ask in asks[:-1]] == ["held_out"] * (len(asks) - 1)
    assert asks[-1] == new


def test_the_demos_prompts_come_first_and_the_limit_holds(tokenizer: Any) -> None:
    options = parse_options(["--out", "live.safetensors", "--requests", "7"])
    config: Any = None

    asks = choose(options, config, tokenizer)

    assert len(asks) == 7
    assert not any(ask.is_real for ask in asks)


def test_options_name_a_file_that_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--out", "live.safetensors", "--chats", "nowhere.jsonl"])

    assert "nowhere.jsonl" in capsys.readouterr().err
