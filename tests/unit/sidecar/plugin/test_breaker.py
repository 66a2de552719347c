from subtext_sidecar.plugin.breaker import (
    CALM_SECONDS,
    FIRST_PAUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    Breaker,
)


def test_it_is_due_after_its_pause_and_closed_by_hand() -> None:
    breaker = Breaker()
    assert (breaker.is_open, breaker.is_due(1e9)) == (False, False)

    assert breaker.trip(1000.0) == FIRST_PAUSE_SECONDS
    assert (breaker.is_open, breaker.is_due(1029.9), breaker.is_due(1030.0)) == (True, False, True)

    breaker.close()
    assert (breaker.is_open, breaker.is_due(1e9)) == (False, False)


def test_the_pause_doubles_from_error_to_error_up_to_a_bound() -> None:
    breaker, now, pauses = Breaker(), 0.0, []
    for _ in range(7):
        pauses.append(breaker.trip(now))
        now = breaker.due
        breaker.close()

    assert pauses == [30, 60, 120, 240, 480, LONGEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS]


def test_an_error_within_the_pause_changes_nothing_and_one_after_it_opens_it_again() -> None:
    breaker = Breaker()
    breaker.trip(0.0)

    assert breaker.trip(10.0) == 20.0
    assert breaker.due == 30.0
    assert breaker.trip(31.0) == 60.0  # it was due, and what was tried failed
    assert breaker.due == 91.0


def test_after_an_hour_without_an_error_the_pause_begins_small_again() -> None:
    breaker = Breaker()
    breaker.trip(0.0)
    breaker.trip(20.0)
    breaker.close()

    assert breaker.trip(20.0 + CALM_SECONDS - 1) == 60.0
    breaker.close()
    assert breaker.trip(20.0 + 2 * CALM_SECONDS) == FIRST_PAUSE_SECONDS
