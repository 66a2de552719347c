"""The work is the same for every arm, and as long as real answers are."""

from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers

from bench.traffic import ChatRequest, choose, mean_answer_tokens, plan_requests, shorten

POOL = [ChatRequest(text=text, answer_tokens=tokens) for text, tokens in [("a", 5), ("b", 70), ("c", 600)]]


def test_the_same_seed_plans_the_same_work() -> None:
    assert plan_requests(POOL, count=8, seed="0/1") == plan_requests(POOL, count=8, seed="0/1")
    assert plan_requests(POOL, count=8, seed="0/1") != plan_requests(POOL, count=8, seed="0/2")


def test_every_request_comes_before_any_comes_again() -> None:
    turns = plan_requests(POOL, count=7, seed="0")

    assert len(turns) == 7
    assert {turn.text for turn in turns[:3]} == {turn.text for turn in turns[3:6]} == {"a", "b", "c"}


def test_unmeasured_traffic_is_short_and_asks_the_same() -> None:
    assert [turn.answer_tokens for turn in shorten(POOL, 48)] == [5, 48, 48]
    assert [turn.text for turn in shorten(POOL, 48)] == ["a", "b", "c"]
    assert mean_answer_tokens(POOL) == 225


def test_an_answer_is_as_long_as_the_real_one_and_what_does_not_fit_is_left_out(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({"x": 0}, unk_token="x"))  # no password
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))

    def words(count: int) -> str:
        return " ".join(["x"] * count)

    pairs = [
        (words(4), words(10)),
        (words(3), words(10)),  # a prompt that is too short
        (words(5), words(3)),  # an answer that is
        (words(1025), words(10)),  # a prompt that is too long
        (words(1000), words(1000)),  # both together are
        (words(6), words(300)),
        (words(4), words(20)),  # the same prompt once more
    ]

    assert [(len(one.text.split()), one.answer_tokens) for one in choose(pairs, tmp_path)] == [
        (4, 20),
        (6, 300),
    ]
