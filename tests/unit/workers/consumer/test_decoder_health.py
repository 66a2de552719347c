"""The health of a decoder: what is bad is bad only over enough readings, and passes by itself."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.consumer import decoder_health
from workers.consumer.decoder_health import (
    FEWEST,
    WINDOW,
    DecoderHealth,
    ReadingFacts,
    check,
    expected_beyond_token,
)


def seen(number: int = 0, **changes: Any) -> ReadingFacts:
    return ReadingFacts(
        number, is_well_formed=True, fve_beyond_token=0.4, position_class="answer"
    )._replace(**changes)


def good(count: int) -> list[ReadingFacts]:
    return [seen(number) for number in range(count)]


def failed(window: list[ReadingFacts], expected: float | None = 0.4) -> set[str]:
    return {found.name for found in check(window, expected=expected, mix=None) if found.is_bad}


def values(window: list[ReadingFacts]) -> dict[str, float]:
    return {found.name: found.value for found in check(window, expected=0.4, mix=None)}


def test_a_decoder_that_reads_as_in_its_calibration_passes_every_check() -> None:
    assert failed(good(WINDOW)) == set()
    assert values(good(WINDOW)) == {
        "unique_texts": 1.0,
        "commonest_text": 1 / WINDOW,
        "well_formed": 1.0,
        "beyond_token": pytest.approx(0.4),
    }


def test_no_reading_is_no_check() -> None:
    assert check([], expected=0.4, mix=None) == []


def test_the_same_text_for_everything_is_bad_in_two_ways() -> None:
    assert failed([seen(7) for _ in range(WINDOW)]) == {"unique_texts", "commonest_text"}


def test_a_few_texts_by_turns_are_a_collapse_that_no_single_text_shows() -> None:
    assert failed([seen(number % 20) for number in range(WINDOW)]) == {"unique_texts"}


def test_one_text_for_a_third_is_a_smell_even_beside_unique_ones() -> None:
    assert failed([*good(130), *[seen(-1)] * 70]) == {"commonest_text"}


@pytest.mark.parametrize(("broken", "is_bad"), [(40, False), (41, True)])
def test_more_than_a_fifth_in_a_broken_format_is_bad(broken: int, *, is_bad: bool) -> None:
    window = [seen(number, is_well_formed=number >= broken) for number in range(WINDOW)]

    assert failed(window) == ({"well_formed"} if is_bad else set())


@pytest.mark.parametrize(
    ("expected", "mean", "is_bad"),
    [
        (0.4, 0.21, False),  # half of it, and 0.1 at least
        (0.4, 0.19, True),
        (0.05, -0.04, False),
        (0.05, -0.06, True),
        (-0.2, -0.29, False),
        (-0.2, -0.31, True),
        (None, -5.0, False),
    ],
)
def test_the_mean_beyond_the_token_is_compared_with_the_calibration(
    expected: float | None, mean: float, *, is_bad: bool
) -> None:
    window = [seen(number, fve_beyond_token=mean) for number in range(WINDOW)]

    assert failed(window, expected) == ({"beyond_token"} if is_bad else set())


def test_readings_without_a_figure_beyond_the_token_are_left_out_of_its_mean() -> None:
    window = [seen(number, fve_beyond_token=None if number % 2 else 0.3) for number in range(WINDOW)]

    assert values(window)["beyond_token"] == pytest.approx(0.3)
    assert "beyond_token" not in values([seen(fve_beyond_token=None)])


def test_below_the_fewest_readings_nothing_is_bad() -> None:
    terrible = seen(is_well_formed=False, fve_beyond_token=-9.0)

    assert failed([terrible] * (FEWEST - 1)) == set()
    assert failed([terrible] * FEWEST) == {"unique_texts", "commonest_text", "well_formed", "beyond_token"}


def test_health_falls_and_recovers_by_itself() -> None:
    health = DecoderHealth(0.4)

    health.add(good(WINDOW))
    assert health.failed == ()
    health.add([seen(-1) for _ in range(WINDOW)])
    assert set(health.failed) == {"unique_texts", "commonest_text"}
    health.add(good(WINDOW))

    assert health.failed == ()


def test_the_shift_of_positions_is_measured_from_the_first_full_window_and_never_bad() -> None:
    health = DecoderHealth(None)

    health.add(good(WINDOW))
    health.add([seen(number, position_class="template") for number in range(WINDOW // 2)])

    shift = next(found for found in health.checks if found.name == "position_shift")
    assert shift.value == pytest.approx(0.5)
    assert not shift.is_bad


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ({"calibration": {"fve_beyond_token": {"value": 0.31, "ci95": [0.2, 0.4], "n": 512}}}, 0.31),
        ({"calibration": {"fve_beyond_token": 0.31}}, 0.31),
        ({"calibration": {"fve": {"value": 0.4}}}, None),
        ({"calibration": None}, None),
        ({"calibration": {"fve_beyond_token": {"value": "high"}}}, None),
        ({}, None),
    ],
)
def test_what_the_calibration_expects_is_read_from_the_card(
    card: dict[str, Any], expected: float | None
) -> None:
    assert expected_beyond_token(card) == expected


READINGS = st.builds(
    ReadingFacts,
    st.integers(0, 3),
    st.booleans(),
    st.none() | st.floats(-1e6, 1),
    st.sampled_from(["template", "prompt", "answer"]),
)


@given(st.lists(READINGS, min_size=1, max_size=3 * WINDOW))
def test_shares_stay_shares_and_every_check_has_a_known_name(readings: list[ReadingFacts]) -> None:
    health = DecoderHealth(0.4)

    health.add(readings)

    for found in health.checks:
        assert found.name in decoder_health.NAMES
        assert found.name == "beyond_token" or 0 <= found.value <= 1
