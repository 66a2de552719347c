from subtext_sidecar.contract.counters import Hop, PluginCounter, Stratum
from subtext_sidecar.local.ledger import Cell, Ledger

UNIFORM = Stratum.UNIFORM
SAMPLED = PluginCounter.ROWS_SAMPLED


def test_counts_are_cumulative_within_a_minute() -> None:
    ledger = Ledger(source="s", hop=Hop.PLUGIN)
    ledger.add(Cell("m", UNIFORM, 7), SAMPLED, 2)
    first = ledger.take_changed()
    ledger.add(Cell("m", UNIFORM, 7), SAMPLED, 3)
    second = ledger.take_changed()

    assert [count.counts for count in first + second] == [{"rows_sampled": 2}, {"rows_sampled": 5}]
    assert ledger.take_changed() == []


def test_models_and_minutes_are_kept_apart_and_come_oldest_first() -> None:
    ledger = Ledger(source="s", hop=Hop.SIDECAR)
    ledger.add(Cell("b", UNIFORM, 8), SAMPLED)
    ledger.add(Cell("a", UNIFORM, 7), SAMPLED)

    assert [(count.model, count.minute, count.hop) for count in ledger.take_changed()] == [
        ("a", 7, "sidecar"),
        ("b", 8, "sidecar"),
    ]


def test_tenants_are_kept_apart_also_when_a_count_could_not_be_sent() -> None:
    ledger = Ledger(source="s", hop=Hop.SIDECAR)
    ledger.add(Cell("m", UNIFORM, 7), SAMPLED)
    ledger.add(Cell("m", UNIFORM, 7, "acme"), SAMPLED, 2)
    taken = {count.tenant: count for count in ledger.take_changed()}
    ledger.put_back(taken["acme"])

    assert {tenant: count.counts["rows_sampled"] for tenant, count in taken.items()} == {
        "default": 1,
        "acme": 2,
    }
    assert ledger.take_changed() == [taken["acme"]]


def test_what_could_not_be_sent_is_taken_again_with_newer_counts() -> None:
    ledger = Ledger(source="s", hop=Hop.PLUGIN)
    ledger.add(Cell("m", UNIFORM, 7), SAMPLED)
    (count,) = ledger.take_changed()
    ledger.put_back(count)
    ledger.add(Cell("m", UNIFORM, 7), SAMPLED)

    assert [count.counts["rows_sampled"] for count in ledger.take_changed()] == [2]


def test_recent_minutes_are_repeated_and_old_ones_forgotten() -> None:
    ledger = Ledger(source="s", hop=Hop.PLUGIN)
    for minute in (0, 2990, 3000):
        ledger.add(Cell("m", UNIFORM, minute), SAMPLED)
    ledger.take_changed()

    ledger.repeat(3000)

    assert [count.minute for count in ledger.take_changed()] == [2990, 3000]
    ledger.repeat(3000 + 2000)
    assert ledger.take_changed() == []
