"""What metrics show of tenants that serve models of one name."""

import datetime as dt

from service.metrics import PrevalenceSample
from service.store.read.incidents import Undecided
from service.store.read.precision import Labels, Watched
from service.watch.all_tenants import highest, sum_labels, sum_undecided

NOON = dt.datetime(2026, 11, 28, 12, tzinfo=dt.UTC)


def test_incidents_are_added_and_the_longest_wait_is_anybodys() -> None:
    waiting = Undecided("m", "open", "critical", 2, NOON)
    longer = waiting._replace(incidents=3, waiting_since=NOON - dt.timedelta(hours=1))
    other = Undecided("m", "acknowledged", "critical", 1, None)

    found = sum_undecided([waiting, other, longer, other])

    assert found == [longer._replace(incidents=5), other._replace(incidents=2)]


def test_labels_are_added() -> None:
    watched, other = Watched("m", 20, "deception"), Watched("m", 23, "deception")

    found = sum_labels([{watched: Labels(5, 2, 1)}, {watched: Labels(7, 0, 3), other: Labels(1, 0, 0)}])

    assert found == {watched: Labels(12, 2, 4), other: Labels(1, 0, 0)}


def test_of_shares_the_one_with_the_highest_bound_is_shown_with_its_own_denominator() -> None:
    low = PrevalenceSample("m", "c", 20, "d", 0.2, lower=0.01, calibrated_lower=0.008, requests=40)
    high = low._replace(estimate=0.1, lower=0.05, calibrated_lower=0.002, requests=900)

    assert highest([low, high]) == [high._replace(calibrated_lower=0.008)]
    assert highest([high, low]) == highest([low, high])
