import numpy as np
import pytest

from workers.nla.claims import Continuation, VectorLabels
from workers.nla.engine.injector import check_directions, rescale
from workers.nla.engine.prompt import InjectedPrompt
from workers.nla.engine.verbalizer import (
    EngineSettings,
    Explanation,
    mask,
    parse_explanation,
    parse_labelled,
    prepare_environment,
)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("<explanation>\nA cat.\n</explanation>", Explanation("A cat.", well_formed=True)),
        (
            "So: <explanation>two\n\nlines</explanation> and more",
            Explanation("two\n\nlines", well_formed=True),
        ),
        ("<explanation>cut off in the mid", Explanation("cut off in the mid", well_formed=False)),
        ("no tags at all", Explanation("no tags at all", well_formed=False)),
        ("<explanation> </explanation>", Explanation("", well_formed=False)),
        ("", Explanation("", well_formed=False)),
        ("<explanation>a\x00b</explanation>", Explanation("ab", well_formed=True)),
    ],
)
def test_an_explanation_is_what_stands_between_the_tags(answer: str, expected: Explanation) -> None:
    assert parse_explanation(answer) == expected


def test_vectors_are_rescaled_without_overflow() -> None:
    vectors = np.array([[3, 4], [3e30, 4e30]], np.float32)

    assert rescale(vectors, 10) == pytest.approx(np.array([[6, 8], [6, 8]]))


def test_vectors_without_direction_are_refused_by_row() -> None:
    vectors = np.array([[1, 0], [0, 0], [np.nan, 1], [np.inf, 1]], np.float32)

    with pytest.raises(ValueError, match=r"rows \[1, 2, 3\] are zero or not finite"):
        check_directions(vectors)


def test_only_the_vectors_rows_are_no_tokens() -> None:
    assert mask(InjectedPrompt((5, 6, 7, 8), 2)) == [True, True, False, True]
    assert mask(InjectedPrompt((5, 6, 6, 8), 1, rows=2)) == [True, False, False, True]


LABELLED = VectorLabels("prose", "medicine", None, (), {}, {})


def test_what_is_written_behind_the_labels_is_put_behind_their_sentence() -> None:
    said = parse_labelled(' to". Reads "It is normal', LABELLED, is_finished=True)

    assert said == Explanation(
        'Prose about medicine. Expects " to". Reads "It is normal',
        well_formed=True,
        labelled=LABELLED,
        continuation=Continuation(" to", "It is normal"),
    )


def test_a_quote_that_is_cut_off_is_kept_and_not_well_formed() -> None:
    said = parse_labelled(' to". Reads "It is', LABELLED, is_finished=False)

    assert not said.well_formed
    assert said.continuation == Continuation(" to", "It is")


def test_an_answer_that_lost_the_format_is_kept_as_it_is() -> None:
    said = parse_labelled(" to and so\x00 on", LABELLED, is_finished=True)

    assert said.text == 'Prose about medicine. Expects " to and so on'
    assert (said.well_formed, said.continuation) == (False, None)


def test_the_longest_answer_depends_on_the_format_where_nobody_sets_it() -> None:
    assert EngineSettings().new_tokens(has_labels=False) == 96
    assert EngineSettings().new_tokens(has_labels=True) == 40
    assert EngineSettings(max_new_tokens=7).new_tokens(has_labels=True) == 7


def test_an_operators_own_setting_is_kept() -> None:
    environment = {"VLLM_CPU_KVCACHE_SPACE": "9"}

    prepare_environment(environment)

    assert environment["VLLM_CPU_KVCACHE_SPACE"] == "9"
    assert environment["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
