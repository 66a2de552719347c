"""The shipped queries parse, and the resolver tells a metric that exists from one that does not."""

import pytest

from deploy import queries

SCRAPE = """\
# HELP subtext_requests_seen_total Requests.
# TYPE subtext_requests_seen_total counter
subtext_requests_seen_total{model="m",stratum="all"} 3.0
# HELP subtext_stream_dead_letters_total Given up.
# TYPE subtext_stream_dead_letters_total counter
# HELP subtext_explanation_fve_ratio Fidelity.
# TYPE subtext_explanation_fve_ratio histogram
subtext_explanation_fve_ratio_bucket{le="0.5",model="m"} 1.0
subtext_explanation_fve_ratio_bucket{le="+Inf",model="m"} 1.0
subtext_explanation_fve_ratio_count{model="m"} 1.0
subtext_explanation_fve_ratio_sum{model="m"} 0.2
"""


def resolve(expr: str, record: str | None = None) -> list[str]:
    return queries.unresolved([queries.Query(source="test", expr=expr, record=record)], [SCRAPE])


def test_every_shipped_query_parses_and_selects_a_metric() -> None:
    shipped = queries.shipped_queries()

    assert len(shipped) > 60
    for query in shipped:
        if query.expr != "vector(1)":
            assert queries.selectors(query.expr), query


def test_every_selected_metric_is_ours_or_vllms_or_recorded() -> None:
    shipped = queries.shipped_queries()
    recorded = {query.record for query in shipped}

    for name in queries.metric_names_used(shipped):
        assert name == "up" or name in recorded or name.startswith(("subtext_", "vllm:")), name


def test_every_recorded_series_is_used() -> None:
    shipped = queries.shipped_queries()
    recorded = {query.record for query in shipped if query.record}

    assert recorded <= queries.metric_names_used(shipped)


@pytest.mark.parametrize(
    "expr",
    [
        'sum by (model) (rate(subtext_requests_seen_total{model="m"}[5m]))',
        'increase(subtext_requests_seen_total{job="subtext-plugin"}[$__rate_interval]) > 0',
        'sum(increase(subtext_stream_dead_letters_total{reason="bad_field"}[15m]))',
        "histogram_quantile(0.5, sum by (le) (rate(subtext_explanation_fve_ratio_bucket[1h])))",
        "max_over_time((sum(subtext_explanation_fve_ratio_count))[1h:5m])",
        "absent(up) or (subtext_explanation_fve_ratio_sum offset 1d)",
    ],
)
def test_a_query_on_exposed_metrics_resolves(expr: str) -> None:
    assert resolve(expr) == []


@pytest.mark.parametrize(
    ("expr", "problem"),
    [
        ("rate(subtext_requests_seen[5m])", "no process exposes subtext_requests_seen"),
        ("1 - up / on () subtext_missing_total", "no process exposes subtext_missing_total"),
        ("max_over_time((sum(subtext_gone))[1h:5m])", "no process exposes subtext_gone"),
        ("label_replace(subtext_lost, 'a', '$1', 'b', '(.*)')", "no process exposes subtext_lost"),
        ('subtext_requests_seen_total{tenant="a"}', "subtext_requests_seen_total has no label tenant"),
        ("topk(3, -subtext_negated)", "no process exposes subtext_negated"),
    ],
)
def test_a_query_on_an_unknown_metric_or_label_is_reported(expr: str, problem: str) -> None:
    assert resolve(expr) == [f"test: {problem}"]


def test_a_recorded_series_resolves_by_its_rule() -> None:
    rule = queries.Query(source="rule", expr="rate(subtext_requests_seen_total[5m])", record="a:b:rate5m")
    use = queries.Query(source="use", expr="a:b:rate5m > 0")

    assert queries.unresolved([rule, use], [SCRAPE]) == []
    assert queries.unresolved([use], [SCRAPE]) == ["use: no process exposes a:b:rate5m"]
