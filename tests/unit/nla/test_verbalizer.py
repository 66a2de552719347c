import numpy as np
import pytest

from workers.nla.prompt import InjectionPrompt
from workers.nla.verbalizer import Explanation, mask, parse_explanation, prepare_environment, rescale


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
        rescale(vectors, 10)


def test_only_the_vector_is_no_token() -> None:
    assert mask(InjectionPrompt((5, 6, 7, 8), 2)) == [True, True, False, True]


def test_an_operators_own_setting_is_kept() -> None:
    environment = {"VLLM_CPU_KVCACHE_SPACE": "9"}

    prepare_environment(environment)

    assert environment["VLLM_CPU_KVCACHE_SPACE"] == "9"
    assert environment["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
