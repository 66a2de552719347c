import json
from pathlib import Path

import pytest

from bench.fidelity import TAXONOMY, calibrated_candidates, main
from bench.fidelity_report import BARS, HELD_OUT, LIVE, document, judge_all, table
from workers.nla.fidelity import Interval

PASSING = {name: Interval(bar.value, bar.value - 0.01, bar.value + 0.01, 400) for name, bar in BARS.items()}
SETTING = {"decoder": "toy", "candidates": 4}


def test_figures_on_their_bars_pass_and_the_report_says_that_it_is_close() -> None:
    found = document({HELD_OUT: PASSING}, SETTING)

    assert found["ok"]
    assert json.loads(json.dumps(found)) == found
    shown = table({HELD_OUT: PASSING})
    assert "MISS" not in shown
    assert shown.count("but the interval contains the bar") == len(BARS)


@pytest.mark.parametrize("name", BARS)
def test_each_bar_can_be_missed_alone(name: str) -> None:
    worse = -0.02 if BARS[name].kind == "at_least" else 0.02
    value = BARS[name].value + worse
    figures = {**PASSING, name: Interval(value, value - 0.01, value + 0.01, 400)}

    found = document({HELD_OUT: figures}, SETTING)

    assert not found["ok"]
    assert [bar["figure"] for bar in found["bars"] if not bar["passed"]] == [name]
    assert table({HELD_OUT: figures}).count("MISS") == 1


def test_what_could_not_be_measured_is_not_passed() -> None:
    figures = {name: figure for name, figure in PASSING.items() if name != "kind_recall"}

    found = document({HELD_OUT: figures}, SETTING)

    assert not found["ok"]
    assert "kind_recall: not measured" in table({HELD_OUT: figures})


def test_nulls_are_held_to_their_bar_in_every_class() -> None:
    figures = {
        **PASSING,
        "verified_same_token/answer": Interval(0.08, 0.05, 0.12, 200),
        "verified_random/template": Interval(0.5, 0.1, 0.9, 6),
    }

    missed = [one.figure for one in judge_all({HELD_OUT: figures}) if not one.is_passed]

    assert missed == ["verified_same_token/answer", "verified_random/template"]


def test_live_chats_are_held_to_what_needs_no_labels() -> None:
    names = {one.figure for one in judge_all({LIVE: PASSING})}

    assert "best_beyond_token" in names
    assert not {name for name in names if "area" in name or "kind" in name}


def test_groups_stand_below_the_figures_of_all_rows() -> None:
    figures = {"best_fve": Interval(0.5, 0.4, 0.6, 9), "best_fve/prompt": Interval(0.4, 0.3, 0.5, 4)}
    lines = [line.split()[0] for line in table({HELD_OUT: figures}).splitlines()[:4] if line]

    assert lines == ["held-out", "best_fve", "by", "best_fve/prompt"]


def test_a_decoder_is_read_with_as_many_candidates_as_it_was_calibrated_with(tmp_path: Path) -> None:
    assert calibrated_candidates(tmp_path) == 4
    (tmp_path / "calibration.json").write_text(json.dumps({"candidates": 8}))
    assert calibrated_candidates(tmp_path) == 8


def test_options_are_checked() -> None:
    assert TAXONOMY.exists()
    with pytest.raises(SystemExit, match="2"):
        main(["--limit", "0"])
