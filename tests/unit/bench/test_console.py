"""What frames tell of scrolling, and what an interaction is judged by."""

import pytest

from bench.console import Times, Views, scrolled_of


def test_frames_are_counted_while_the_place_changes_alone() -> None:
    still = [(0.0, 0.0), (500.0, 0.0)]
    moving = [(500.0 + 20 * number, 100.0 * number) for number in range(1, 11)]
    after = [(900.0, 1000.0), (2000.0, 1000.0)]

    found = scrolled_of([*still, *moving, *after])

    assert found.frames_a_second == pytest.approx(50)
    assert found.longest_frame_ms == pytest.approx(20)
    assert found.pixels == 1000


def test_what_did_not_scroll_had_no_frames() -> None:
    assert scrolled_of([(0.0, 0.0), (16.0, 0.0)]).frames_a_second == 0


def test_what_a_page_can_do_by_itself_is_judged_when_it_is_done() -> None:
    local = Times(is_local=True, frame=[10.0], change=[40.0])
    asking = Times(is_local=False, frame=[10.0], change=[400.0])

    assert local.judged == [40.0]
    assert asking.judged == [10.0]


def test_what_never_comes_is_not_waited_for_a_third_time() -> None:
    step = Times(is_local=True, change=[5_000.0, 40.0])
    view = Views(cold=[20_000.0], warm=[800.0])

    assert not step.is_hopeless
    assert not view.is_hopeless

    step.change.append(5_001.0)
    view.warm.append(20_003.0)

    assert step.is_hopeless
    assert view.is_hopeless
