"""The evidence log's benchmark judges each figure by its own bar, and no load means no pass."""

import pytest

from bench import log_report
from bench.log import main
from bench.log_report import BOTH, LOG, PLAIN, SECURITY, Offered

OFFERED = Offered(rate=1000.0, seconds=20.0, ages=[0.2, 5.4, 3.0], sequenced=0.99)
INGEST = {PLAIN: [100.0, 200.0], LOG: [90.0, 180.0], SECURITY: [95.0, 190.0], BOTH: [80.0, 160.0]}


def test_ratios_are_taken_within_rounds() -> None:
    figures = {line.name: line.figure for line in log_report.lines_of([2000.0, 3000.0], OFFERED, INGEST)}

    assert figures[f"ratio, {BOTH} to {PLAIN}"] == pytest.approx((0.8, 0.8, 0.8))
    assert figures["entries/s sequenced"].median == 2500.0
    assert figures["oldest unsigned entry, s, longest"].median == 5.4


@pytest.mark.parametrize(
    ("sequenced", "offered", "both", "passes"),
    [
        (1000.0, OFFERED, 70.0, True),
        (999.0, OFFERED, 70.0, False),
        (1000.0, OFFERED._replace(ages=[1.0, 10.1]), 70.0, False),
        (1000.0, OFFERED._replace(rate=900.0), 70.0, False),
        (1000.0, OFFERED, 69.0, False),
    ],
)
def test_every_bar_is_needed(sequenced: float, offered: Offered, both: float, *, passes: bool) -> None:
    ingest = {PLAIN: [100.0], LOG: [10.0], SECURITY: [10.0], BOTH: [both]}
    lines = log_report.lines_of([sequenced], offered, ingest)

    assert log_report.document(lines, offered, 1)["ok"] is passes
    assert ("FAIL" in log_report.render(lines, offered)) is not passes


def test_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--rounds", "0"])
