"""What timestamps say of a log: how far they reach, how late they came, and what does not fit them."""

import datetime as dt

from service.evidence.entry import Leaf
from service.evidence.merkle import Frontier
from service.evidence.note import Checkpoint
from service.evidence.timestamped import Reach, Timestamps

START = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)
MINUTE = dt.timedelta(minutes=1)


def leaves(*minutes: int) -> list[Leaf]:
    """Return a leaf for each of these times, in minutes after the start."""
    return [Leaf(seq, "flag", START + at * MINUTE, bytes([seq]) * 32) for seq, at in enumerate(minutes)]


def checkpoint(of: list[Leaf]) -> Checkpoint:
    frontier = Frontier()
    for leaf in of:
        frontier.add(leaf.hash())
    return Checkpoint("log", frontier.size, frontier.root())


def compare(shown: list[Leaf], *stamped: tuple[list[Leaf], int]) -> tuple[Timestamps, Reach | None]:
    """Hold leaves against trees that were timestamped, each at its minute."""
    timestamps, frontier = Timestamps(), Frontier()
    for of, minute in stamped:
        timestamps.add(checkpoint(of), START + minute * MINUTE)
    for leaf in shown:
        frontier.add(leaf.hash())
        timestamps.compare(leaf, frontier)
    return timestamps, timestamps.end(frontier.size)


def test_the_longest_wait_is_to_the_first_timestamp_that_covers_an_entry() -> None:
    shown = leaves(0, 10, 20, 200, 210)

    timestamps, reach = compare(shown, (shown[:2], 60), (shown[:3], 120), (shown[:4], 205))

    assert reach == Reach(4, 3, START + 60 * MINUTE, START + 205 * MINUTE, 100 * MINUTE)
    assert (timestamps.other_history, timestamps.postdated) == ([], [])


def test_a_larger_tree_that_was_seen_earlier_covers_what_is_below_it() -> None:
    shown = leaves(0, 1, 2)

    _, reach = compare(shown, (shown[:1], 500), (shown, 5))

    assert reach is not None
    assert reach.lag == 5 * MINUTE
    assert (reach.first_at, reach.last_at) == (START + 5 * MINUTE, START + 500 * MINUTE)


def test_a_past_that_was_written_later_shows_in_the_wait() -> None:
    shown = leaves(0, 1)

    _, reach = compare(shown, (shown, 60 * 24 * 90))

    assert reach is not None
    assert reach.lag == dt.timedelta(days=90)


def test_another_tree_a_shorter_log_and_times_to_come_do_not_fit() -> None:
    shown = leaves(0, 1, 30)

    timestamps, reach = compare(shown, (leaves(0, 2), 5), (leaves(0, 1, 30, 31), 40), (shown, 15))

    assert [one.where for one in timestamps.other_history] == ["entries 0 to 1", "entries 3 to 3"]
    assert [one.where for one in timestamps.postdated] == ["entries 0 to 2"]
    assert reach is not None
    assert reach.timestamps == 1


def test_without_a_timestamp_that_holds_nothing_is_said() -> None:
    shown = leaves(0, 1)

    assert compare(shown, (leaves(0, 2), 5))[1] is None
    assert compare(shown)[1] is None
