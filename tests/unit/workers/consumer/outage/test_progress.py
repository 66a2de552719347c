"""Liveness: late only after a deadline without a beat; the watchdog ends what stays late."""

from tests.support.waiting import wait_until
from workers.consumer.outage.progress import Progress, Watchdog


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_nothing_is_late_before_the_first_beat_and_each_beat_starts_the_deadline_again() -> None:
    clock = Clock()
    progress = Progress(10.0, clock)
    clock.now = 1000.0
    assert not progress.is_stalled

    progress.beat()
    clock.now = 1010.0
    assert not progress.is_stalled
    clock.now = 1010.5
    assert progress.is_stalled
    assert progress.late_seconds == 0.5
    progress.beat()
    assert not progress.is_stalled


def test_the_watchdog_hands_back_and_ends_the_process_when_the_grace_is_over() -> None:
    clock, done = Clock(), list[object]()
    progress = Progress(0.4, clock)
    progress.beat()
    clock.now = 1.0
    watchdog = Watchdog(
        progress,
        lambda: done.append("back"),
        grace_seconds=1.0,
        end=done.append,
    )
    watchdog.start()

    assert done == []
    clock.now = 1.5
    wait_until("its end", lambda: not watchdog.is_alive())

    assert done == ["back", 3]


def test_a_failing_hand_back_does_not_keep_the_process() -> None:
    clock, done = Clock(), list[int]()
    progress = Progress(0.4, clock)
    progress.beat()
    clock.now = 5.0

    def fail() -> None:
        raise ConnectionError("Redis is away")

    watchdog = Watchdog(progress, fail, grace_seconds=1.0, end=done.append)
    watchdog.start()

    wait_until("its end", lambda: not watchdog.is_alive())
    assert done == [3]


def test_a_closed_watchdog_ends_nothing() -> None:
    progress = Progress(0.4, Clock())
    watchdog = Watchdog(progress, lambda: None, end=lambda _: None)
    watchdog.start()

    watchdog.close()

    assert not watchdog.is_alive()
