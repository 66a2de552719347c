import json

import pytest

from bench.sidecar import BLOCKS, RAW, Figures, judge_memory, report, table


def rounds(raw: float, shipped: float) -> list[dict[str, Figures]]:
    one = {name: Figures(shipped, 40.0) for name in BLOCKS}
    return [{RAW: Figures(raw, 0.0), **one}] * 7


@pytest.mark.parametrize(
    ("raw", "shipped", "ok"), [(17_000, 10_000, True), (17_000, 8_200, False), (12_000, 7_500, False)]
)
def test_both_bars_must_be_passed(raw: float, shipped: float, *, ok: bool) -> None:
    document = report(rounds(raw, shipped), None)

    assert document["ok"] is ok
    assert json.loads(json.dumps(document)) == document
    assert "rows_per_second" in table(document)


def test_memory_that_settles_is_flat_and_memory_that_grows_is_not() -> None:
    seconds = [float(second) for second in range(300)]
    settling = [60 + min(second, 30) / 3 for second in seconds]

    flat = judge_memory(seconds, settling, 1)
    leaking = judge_memory(seconds, [60 + second / 100 for second in seconds], 1)

    assert flat.is_flat
    assert flat.trend_mib_per_minute == pytest.approx(0, abs=1e-6)
    assert not leaking.is_flat
    assert leaking.trend_mib_per_minute == pytest.approx(0.6)
    assert not report(rounds(17_000, 10_000), leaking)["ok"]
    assert "NOT FLAT" in table(report(rounds(17_000, 10_000), leaking))
