"""Metrics are read as growth between two moments, so that earlier arms do not count."""

import pytest

from bench.scrape import Scrape

BEFORE = """
# TYPE rows counter
rows_total{stage="plugin",reason="socket_full"} 5
rows_total{stage="plugin",reason="error"} 0
# TYPE cost histogram
cost_bucket{sampled="none",le="0.00001"} 10
cost_bucket{sampled="none",le="0.00002"} 10
cost_bucket{sampled="none",le="+Inf"} 10
cost_count{sampled="none"} 10
cost_sum{sampled="none"} 0.0001
"""
AFTER = """
# TYPE rows counter
rows_total{stage="plugin",reason="socket_full"} 25
rows_total{stage="plugin",reason="error"} 0
rows_total{stage="sidecar",reason="trimmed"} 3
# TYPE cost histogram
cost_bucket{sampled="none",le="0.00001"} 20
cost_bucket{sampled="none",le="0.00002"} 40
cost_bucket{sampled="none",le="+Inf"} 42
cost_count{sampled="none"} 42
cost_sum{sampled="none"} 0.001
cost_bucket{sampled="some",le="0.00001"} 0
cost_bucket{sampled="some",le="0.00002"} 0
cost_bucket{sampled="some",le="+Inf"} 1
"""


def test_growth_is_told_by_label_and_a_new_series_grew_from_nothing() -> None:
    grown = Scrape.of(AFTER).since(Scrape.of(BEFORE))

    assert grown.total("rows_total") == 23
    assert grown.total("rows_total", stage="plugin") == 20
    assert grown.by("rows_total", "reason") == {"socket_full": 20, "trimmed": 3}
    assert grown.total("unknown_total") == 0


def test_a_histograms_median_is_that_of_its_growth() -> None:
    grown = Scrape.of(AFTER).since(Scrape.of(BEFORE))

    # 10 steps up to 10 us, 20 more up to 20 us, 2 above: the 16th of 32 lies in the second bucket.
    assert grown.median("cost", sampled="none") == pytest.approx(13e-6)
    assert Scrape.of(BEFORE).median("cost", sampled="some") is None


def test_a_median_past_the_last_bound_is_told_as_that_bound() -> None:
    assert Scrape.of(AFTER).median("cost", sampled="some") == 2e-5
