import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.nla import claims
from workers.nla.checkpoint.labels import pool_areas
from workers.nla.claims import Continuation, VectorLabels


def labelled(area: str | None, topic: str | None = None, *kinds: str) -> VectorLabels:
    return VectorLabels("an answer", area, topic, kinds, {"law": 0.2, "medicine": 0.8}, {})


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (labelled(None), "An answer."),
        (labelled("law"), "An answer about law."),
        (labelled("law", "law"), "An answer about law."),
        (labelled("law", "contracts"), "An answer about law (contracts)."),
        (labelled(None, None, "fraud"), "An answer, touching on fraud."),
        (
            labelled("law", "contracts", "fraud", "theft", "self-harm"),
            "An answer about law (contracts), touching on fraud, theft and self-harm.",
        ),
    ],
)
def test_the_first_sentence_says_only_what_the_labels_are_sure_of(
    said: VectorLabels, sentence: str
) -> None:
    assert claims.first_sentence(said) == sentence


@given(
    st.text(min_size=1).filter(lambda text: claims.READS not in f'{text}".' and "\x00" not in text),
    st.text(),
)
def test_what_was_written_is_split_where_it_was_joined(expects: str, quote: str) -> None:
    continuation = Continuation(expects, quote)
    written = claims.explanation("Prose.", continuation).removeprefix(f"Prose.{claims.EXPECTS}")
    if claims.READS in expects + claims.READS[:-1]:
        return  # the expected token would hold the mark itself

    assert claims.parse_continuation(written) == continuation


@pytest.mark.parametrize("answer", ["", " to", '". Reads "x', ' to" Reads "x', " to. Reads x"])
def test_an_answer_without_its_marks_is_not_split(answer: str) -> None:
    assert claims.parse_continuation(answer) is None


def test_the_read_token_ends_the_quote_that_people_see() -> None:
    text = claims.explanation("Prose.", Continuation(" a", "to be"))

    assert claims.shown(text, " or") == 'Prose. Expects " a". Reads "to be or"'


def test_a_request_is_about_what_its_positions_are_about_on_average() -> None:
    pooled = pool_areas([labelled("medicine"), labelled(None), labelled("medicine")])

    assert (pooled[0], pooled[2]) == ("medicine", 2)
    assert pooled[1] == pytest.approx(0.8)
