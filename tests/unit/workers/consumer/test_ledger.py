"""What becomes of an entry is counted where plugin and sidecar counted it."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from subtext_sidecar.contract import streams
from subtext_sidecar.contract.counters import CounterName, WorkerCounter
from workers.consumer import ledger
from workers.consumer.ledger import Cell
from workers.consumer.queue import Entry

MINUTE = 30_000_000
SHIPPED = b"%d-0" % (MINUTE * 60_000 + 4_000)


def entry(header: bytes) -> Entry:
    return Entry(SHIPPED, {streams.FIELD_HEADER: header}, 1)


def header(**changes: Any) -> bytes:
    fields = {"model": "m", "stratum": "opt_in", "captured_at": (MINUTE - 90) * 60.0}
    return msgspec.msgpack.encode(fields | changes)


def test_an_entry_counts_in_the_minute_of_its_capture_however_late_it_is_read() -> None:
    assert ledger.cell_of(entry(header()), "served") == Cell("m", "opt_in", MINUTE - 90)


@pytest.mark.parametrize(
    ("changes", "cell"),
    [
        ({"captured_at": 0.0}, Cell("m", "opt_in", MINUTE)),
        ({"captured_at": float("nan")}, Cell("served", "unknown", MINUTE)),
        ({"stratum": "made up"}, Cell("m", "unknown", MINUTE - 90)),
        ({"model": ""}, Cell("served", "opt_in", MINUTE - 90)),
        ({"model": "a\x00"}, Cell("served", "opt_in", MINUTE - 90)),
        ({"model": "m" * 257}, Cell("served", "opt_in", MINUTE - 90)),
        ({"tenant": "acme"}, Cell("m", "opt_in", MINUTE - 90, "acme")),
        ({"tenant": "No Name"}, Cell("m", "opt_in", MINUTE - 90)),
        ({"tenant": 5}, Cell("m", "opt_in", MINUTE - 90)),
    ],
)
def test_what_a_header_does_not_tell_believably_is_not_believed(
    changes: dict[str, Any], cell: Cell
) -> None:
    assert ledger.cell_of(entry(header(**changes)), "served") == cell


@given(st.binary(max_size=100))
def test_any_bytes_count_somewhere(garbage: bytes) -> None:
    cell = ledger.cell_of(entry(garbage), "served")

    assert cell.stratum in ledger.STRATA


def test_an_entry_without_a_header_counts_as_unknown() -> None:
    assert ledger.cell_of(Entry(SHIPPED, {}, 1), "served") == Cell("served", "unknown", MINUTE)


def test_a_tally_has_one_row_a_cell_and_counter() -> None:
    one, two = Cell("m", "uniform", MINUTE), Cell("m", "opt_in", MINUTE)

    cells: dict[CounterName, list[Cell]] = {
        WorkerCounter.ROWS_CONSUMED: [one, one, two],
        WorkerCounter.ROWS_DUPLICATE: [],
        WorkerCounter.ROWS_DECODED: [two],
    }
    rows = ledger.to_rows("s", ledger.tally(cells))

    counted = {(row.stratum, row.counter): row.count for row in rows}
    assert counted == {
        ("uniform", "rows_consumed"): 2,
        ("opt_in", "rows_consumed"): 1,
        ("opt_in", "rows_decoded"): 1,
    }
    assert {(row.source, row.hop, row.minute.timestamp()) for row in rows} == {("s", "worker", MINUTE * 60)}
