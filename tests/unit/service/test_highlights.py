import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.highlights import MOST_RANGES, ranges_of, words_of


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("'first' <-> 'aid' | 'bandage'", ["first", "aid", "bandage"]),
        ("'a' & !'b' & !( 'c' <-> 'd' ) & 'e'", ["a", "e"]),
        ("'it''s' & 'a'", ["it's", "a"]),
        ("'self-harm' <-> 'self' <-> 'harm'", ["self-harm", "self", "harm"]),
    ],
)
def test_the_words_of_a_query_are_those_that_it_looks_for(query: str, words: list[str]) -> None:
    assert words_of(query) == words


def test_whole_words_are_marked_in_any_case_and_the_longest_first() -> None:
    text = "A train, Training; the TRAIN's self-harm."

    marked = [text[one.start : one.end] for one in ranges_of(text, ["train", "self", "self-harm"])]

    assert marked == ["train", "TRAIN", "self-harm"]


def test_characters_are_code_points() -> None:
    assert ranges_of("🚂🚂 Über über", ["über"]) == [(3, 7), (8, 12)]


def test_nothing_is_marked_without_words_and_no_more_than_there_is_room_for() -> None:
    assert ranges_of("a text", []) == []
    assert len(ranges_of("a " * 1000, ["a"])) == MOST_RANGES


@given(st.text(), st.lists(st.text(min_size=1), max_size=4))
def test_ranges_lie_in_the_text_in_order_and_apart(text: str, words: list[str]) -> None:
    end = 0
    for one in ranges_of(text, words):
        assert end <= one.start < one.end <= len(text)
        end = one.end
