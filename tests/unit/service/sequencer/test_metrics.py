"""The age of what is not signed grows until a checkpoint covers it, and while nobody can look."""

import pytest
from prometheus_client import CollectorRegistry

from service.sequencer.metrics import LogMetrics

AGE = "subtext_log_checkpoint_age_seconds"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_it_is_shown_from_the_start(clock: Clock) -> None:
    registry = CollectorRegistry()
    LogMetrics(registry, clock)

    assert registry.get_sample_value(AGE) == 0.0


def test_an_entry_that_waits_ages_and_a_look_does_not_make_it_young(clock: Clock) -> None:
    registry = CollectorRegistry()
    metrics = LogMetrics(registry, clock)

    metrics.note_look(pending=1, oldest=3.0)
    clock.now += 2
    assert registry.get_sample_value(AGE) == 5.0
    metrics.note_look(pending=0, oldest=5.0)
    assert registry.get_sample_value(AGE) == 5.0
    metrics.note_look(pending=0, oldest=0.0)
    clock.now += 2
    assert registry.get_sample_value(AGE) == 0.0


def test_while_no_look_succeeds_entries_may_wait_since_the_last(clock: Clock) -> None:
    registry = CollectorRegistry()
    metrics = LogMetrics(registry, clock)
    metrics.note_look(pending=0, oldest=0.0)

    clock.now += 90

    assert registry.get_sample_value(AGE) == 90.0
