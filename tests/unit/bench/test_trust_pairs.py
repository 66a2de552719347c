"""The paired tests of bench-trust: items, what is named, and exact sign tests."""

import numpy as np
import pytest

from bench.trust.pairs import figures, prompts
from bench.trust.rates import rate

NAMES = ("Mary", "John", "Tom", "Anna")


def test_half_of_the_items_name_the_indirect_object_first() -> None:
    pairs = prompts.make(NAMES, 40)

    assert sum(pair.original.is_first for pair in pairs) == 20
    for item, _ in pairs:
        first, second = (item.sentence.index(name) for name in item.names())
        assert (first < second) == item.is_first
        assert (item.sentence.count(item.indirect_object), item.sentence.count(item.subject)) == (1, 2)


def test_a_swapped_item_exchanges_the_names_and_nothing_else() -> None:
    for original, swapped in prompts.make(NAMES, 20):
        one, other = original.names()
        assert swapped.names() == (other, one)
        marked = original.sentence.replace(one, "#").replace(other, one).replace("#", other)
        assert marked == swapped.sentence


def test_only_names_of_one_token_are_used() -> None:
    class Tokenizer:
        def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
            assert not add_special_tokens
            return list(range(len(text)))[:2] if text == " Anna" else [len(text)]

    assert prompts.single_tokens(("Mary", "Anna"), Tokenizer()) == {"Mary": 5}


def test_names_count_as_whole_words() -> None:
    items = [prompts.make(("Mary", "Tom"), 1)[0].original] * 3

    found = figures.named(["Tomorrow", "Mary gave Tom", ""], items)

    assert found.sum(axis=1).tolist() == [0, 2, 0]


@pytest.mark.parametrize(
    ("text", "token"),
    [('An answer. Expects " Mary". Reads "a drink to"', " Mary"), ("broken", "")],
)
def test_the_expected_token_is_taken_out_of_a_reading(text: str, token: str) -> None:
    assert figures.expected(text) == token


def test_a_sign_test_counts_only_pairs_that_differ() -> None:
    ahead = np.array([True] * 9 + [False] + [True] * 5)
    behind = np.array([False] * 9 + [True] + [True] * 5)

    found = figures.sign_test("method", "question", ahead, behind)

    assert (found.wins.found, found.wins.n, found.pairs) == (9, 10, 15)
    assert found.p_value == pytest.approx(2 * 11 / 1024)
    assert found.finding == "yes"


def test_nothing_that_differs_is_not_told_from_chance() -> None:
    same = np.ones(4, bool)

    found = figures.sign_test("method", "question", same, same)

    assert (found.p_value, found.finding) == (1.0, "not told from chance")
    assert "none differ" in figures.text([found], rate(same))
    assert figures.document([found], rate(same), {})["tests"][0]["wins"] is None


def test_a_rule_on_positions_is_not_told_from_chance_in_either_test() -> None:
    pairs = prompts.make(NAMES, 40)
    sides = [figures.first_named([pair[side] for pair in pairs]) for side in (0, 1)]

    rows = figures.tests({figures.POSITION: (sides[0], sides[1])})

    assert [row.finding for row in rows] == ["not told from chance"] * 2


def test_the_higher_logit_of_the_two_names_decides() -> None:
    logits = np.array([[0.0, 2.0, 1.0], [0.0, 2.0, 3.0]])

    found = figures.above(logits, np.array([[1, 2], [1, 2]]))

    assert found.tolist() == [[True, False], [False, True]]


def test_pairs_are_kept_where_the_model_solves_both_sides() -> None:
    pairs = prompts.make(NAMES, 3)
    first = np.array([[True, False], [True, False], [False, True]])
    second = np.array([[True, False], [False, True], [True, False]])

    assert figures.solved_pairs(pairs, first, second) == pairs[:1]


def test_the_text_shows_a_denominator_with_every_share() -> None:
    found = figures.sign_test("method", "question", np.ones(4, bool), np.zeros(4, bool))

    text = figures.text([found], rate(np.ones(8, bool)))

    assert "(4 of 4)" in text
    assert "(8 of 8)" in text
