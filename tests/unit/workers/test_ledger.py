"""A worker's counts add up within a minute and are never changed in place."""

from workers.ledger import Ledger


def counts(ledger: Ledger, minute: int) -> dict[str, int]:
    return {row.counter: row.count for row in ledger.counts_of(minute)}


def test_counts_accumulate_within_their_minute() -> None:
    ledger = Ledger(source="s", model="m").plus(7, {"a": 1, "b": 2}).plus(7, {"a": 3}).plus(8, {"a": 1})

    assert counts(ledger, 7) == {"a": 4, "b": 2}
    assert counts(ledger, 8) == {"a": 1}


def test_a_ledger_thrown_away_leaves_the_old_one_as_it_was() -> None:
    before = Ledger(source="s", model="m").plus(7, {"a": 1})

    before.plus(7, {"a": 9})

    assert counts(before, 7) == {"a": 1}


def test_nothing_counted_is_no_row_and_old_minutes_go() -> None:
    ledger = Ledger(source="s", model="m").plus(1, {"a": 1}).plus(2, {"a": 0}).plus(3, {"a": 1})

    assert counts(ledger, 2) == {}
    assert counts(ledger, 1) == {}
    assert counts(ledger, 3) == {"a": 1}
