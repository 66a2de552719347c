"""A benchmark that was killed goes on from its finished rounds, and only from comparable ones."""

from pathlib import Path

import pytest

from bench.results import CaptureFigures, Plan, ResultsFile, ResumeError, Round, RunFigures, check_same

PLAN = Plan(seed=0, seconds=12.0, arms=["vanilla", "idle"], turns={1: 8, 32: 64})
CAPTURE = CaptureFigures(
    overhead_seconds={"none": 1e-5, "some": None},
    requests_seen=8,
    requests_sampled=0,
    rows_sampled=0,
    rows_handed_over=0,
    dropped={},
    sidecar_cpu_seconds=0.1,
)


def a_round(number: int) -> Round:
    run = RunFigures(
        arm="idle",
        concurrency=1,
        requests=8,
        tokens=320,
        wall_seconds=12.5,
        engine_cpu_seconds=20.0,
        server_cpu_seconds=21.0,
        ttft_seconds=[0.1, 0.2],
        gap_seconds=[0.03],
        capture=CAPTURE,
    )
    return Round(number=number, runs=[run])


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    results = ResultsFile(tmp_path / "new" / "rounds.jsonl")
    results.begin(PLAN)
    results.add(a_round(0))
    results.add(a_round(1))

    assert results.read() == (PLAN, [a_round(0), a_round(1)])


def test_a_line_that_a_kill_cut_off_is_left_out_and_does_not_spoil_the_next(tmp_path: Path) -> None:
    path = tmp_path / "rounds.jsonl"
    results = ResultsFile(path)
    results.begin(PLAN)
    results.add(a_round(0))
    path.write_bytes(path.read_bytes() + b'{"number":1,"runs":[{"arm"')

    plan, rounds = results.read()
    results.truncate_to(plan, rounds)
    results.add(a_round(1))

    assert results.read() == (PLAN, [a_round(0), a_round(1)])


def test_a_new_run_keeps_the_old_one_beside_it(tmp_path: Path) -> None:
    results = ResultsFile(tmp_path / "rounds.jsonl")
    results.begin(PLAN)
    results.add(a_round(0))

    results.begin(PLAN)

    assert results.read() == (PLAN, [])
    assert ResultsFile(tmp_path / "rounds.old").read() == (PLAN, [a_round(0)])


def test_other_options_cannot_go_on_from_these_rounds(tmp_path: Path) -> None:
    arms = ["vanilla", "idle"]
    check_same(PLAN, seed=0, seconds=12.0, arms=arms, concurrency=(1, 32))
    with pytest.raises(ResumeError, match=r"--seconds is 6.0, the rounds so far had 12.0"):
        check_same(PLAN, seed=0, seconds=6.0, arms=arms, concurrency=(1, 32))
    with pytest.raises(ResumeError, match=r"--concurrency is \[1\], the rounds so far had \[1, 32\]"):
        check_same(PLAN, seed=0, seconds=12.0, arms=arms, concurrency=[1])
    with pytest.raises(ResumeError, match="run without it first"):
        ResultsFile(tmp_path / "none").read()
