"""The report pairs by round, judges by the median, and says the same in its table and its JSON."""

import json
from typing import Any

import pytest

from bench.arms import ARMS
from bench.report import Cell, document, ratios, table
from bench.results import CaptureFigures, Round, RunFigures

ARM_NAMES = ("vanilla", "again", "idle", "saturated")
CHOSEN = [arm for arm in ARMS if arm.name in ARM_NAMES]


def run(arm: str, concurrency: int, slowness: float, round_slowness: float) -> RunFigures:
    """An arm that takes ``slowness`` times as long, in a round that takes ``round_slowness`` times."""
    seconds = 10.0 * slowness * round_slowness
    captured = arm in ("idle", "saturated")
    rows = 100 if arm == "saturated" else 0
    capture = CaptureFigures(
        overhead_seconds={"none": 1e-5, "some": 4e-5 if rows else None},
        requests_seen=10,
        requests_sampled=10 if rows else 0,
        rows_sampled=rows,
        rows_handed_over=0,
        dropped={"socket_full": rows} if rows else {},
        sidecar_cpu_seconds=0.2,
    )
    return RunFigures(
        arm=arm,
        concurrency=concurrency,
        requests=10,
        tokens=400,
        wall_seconds=seconds,
        engine_cpu_seconds=2 * seconds,
        server_cpu_seconds=2.2 * seconds,
        ttft_seconds=[0.1 * seconds] * 5,
        gap_seconds=[0.01 * seconds] * 100,
        capture=capture if captured else None,
    )


def rounds(slowness: dict[str, float]) -> list[Round]:
    # The machine drifts by a factor of two: what is paired must not see it.
    return [
        Round(
            number=number,
            runs=[
                run(arm, concurrency, slowness.get(arm, 1.0), 1 + number / 6)
                for concurrency in (1, 32)
                for arm in reversed(ARM_NAMES)
            ],
        )
        for number in range(7)
    ]


def reported(measured: list[Round]) -> dict[str, Any]:
    return document(measured, CHOSEN, ratios(measured, CHOSEN))


def test_drift_of_the_machine_cancels_within_rounds() -> None:
    cells = ratios(rounds({"idle": 1.25}), CHOSEN)

    assert cells[Cell("idle", 1, "throughput")] == pytest.approx((0.8, 0.8, 0.8))
    assert cells[Cell("idle", 32, "itl_p99")] == pytest.approx((1.25, 1.25, 1.25))
    assert cells[Cell("idle", 32, "engine_cpu")].median == pytest.approx(1.25)
    assert cells[Cell("again", 1, "throughput")].median == pytest.approx(1.0)


def test_captured_arms_are_compared_with_their_own_process_too() -> None:
    measured = rounds({"idle": 0.95, "saturated": 0.95})  # the captured process happens to be faster

    cells = ratios(measured, CHOSEN, "idle")
    found = reported(measured)

    assert {cell.arm for cell in cells} == {"saturated"}
    assert cells[Cell("saturated", 1, "throughput")].median == pytest.approx(1.0)
    assert set(found["ratios_to_idle"]) == {"saturated"}
    assert found["ratios"]["saturated"]["1"]["throughput"]["median"] == pytest.approx(1 / 0.95)
    assert "ratios to idle, which is the same process" in table(measured, CHOSEN, ratios(measured, CHOSEN))


def test_every_bar_is_judged_at_every_concurrency() -> None:
    found = reported(rounds({}))

    assert found["ok"] is True
    assert len(found["bars"]) == 2 * 2 * 2
    assert {(bar["arm"], bar["figure"], bar["bar"]) for bar in found["bars"]} == {
        ("idle", "throughput", 0.99),
        ("idle", "itl_p99", 1.05),
        ("saturated", "throughput", 0.97),
        ("saturated", "itl_p99", 1.08),
    }


def test_one_bar_that_is_missed_fails_the_whole_and_shows() -> None:
    slow = rounds({"idle": 1.02})

    found = reported(slow)

    assert found["ok"] is False
    missed = [bar for bar in found["bars"] if not bar["passed"]]
    assert {(bar["arm"], bar["figure"]) for bar in missed} == {("idle", "throughput")}
    assert "FAIL  idle, 1 concurrent, throughput" in table(slow, CHOSEN, ratios(slow, CHOSEN))


def test_drops_and_host_time_stand_beside_the_ratios() -> None:
    found = reported(rounds({}))["capture"]

    assert set(found) == {"idle", "saturated"}
    assert found["saturated"]["32"]["dropped"] == {"socket_full": 700}
    assert found["saturated"]["32"]["overhead_us"] == {"none": pytest.approx(10), "some": pytest.approx(40)}
    assert found["idle"]["1"]["overhead_us"]["some"] is None
    assert found["idle"]["1"]["sidecar_cpu_s_per_1k_tokens"] == pytest.approx(0.5)
    text = table(rounds({}), CHOSEN, ratios(rounds({}), CHOSEN))
    assert "saturated, 32 concurrent: 10 and 40 us" in text
    assert "0 of 700 rows handed over, dropped: socket_full 700" in text


def test_the_document_is_json() -> None:
    assert json.loads(json.dumps(reported(rounds({}))))["bench"] == "capture"
