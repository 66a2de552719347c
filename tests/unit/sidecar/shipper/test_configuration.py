"""What is run is told at once when it changed and each minute, and not at all once nobody says it."""

import json

import numpy as np

from subtext_sidecar.anomaly import fit
from subtext_sidecar.contract.configuration import Kind, configuration, digest
from subtext_sidecar.contract.counters import Hop
from subtext_sidecar.contract.record import ConfigurationReport, CoverageCount
from subtext_sidecar.local.capture_view import SILENT_AFTER_SECONDS
from subtext_sidecar.local.policy import ScreenPolicy
from subtext_sidecar.shipper.configuration import REPORT_SECONDS, ConfigurationNews
from tests.support.records import status


def report(rate: float) -> ConfigurationReport:
    made = configuration(Kind.CAPTURE_POLICY, {"request_rate": rate})
    return ConfigurationReport(kind=made.kind, digest=made.digest, content=made.content)


ALL, HALF = report(1.0), report(0.5)


def tell(news: ConfigurationNews, now: float) -> list[CoverageCount]:
    due = news.due(now)
    news.told(due, now)
    return due


def news_of(*reports: ConfigurationReport, now: float = 0.0) -> ConfigurationNews:
    news = ConfigurationNews("sidecar-1")
    news.hear(status("p1", configurations=reports), now)
    return news


def test_what_a_plugin_runs_is_told_at_once_then_each_minute() -> None:
    news = news_of(ALL)

    [first] = tell(news, 0.0)
    news.hear(status("p1", configurations=(ALL,)), 59.0)
    assert tell(news, 59.0) == []
    [again] = tell(news, REPORT_SECONDS)

    assert first == again
    assert (first.source, first.hop, first.model, first.counts) == ("p1", Hop.PLUGIN, "m", {})
    assert first.configurations == (ALL,)


def test_a_change_is_told_at_once() -> None:
    news = news_of(ALL)
    tell(news, 0.0)

    news.hear(status("p1", configurations=(HALF,)), 2.0)

    [told] = tell(news, 2.0)
    assert told.configurations == (HALF,)


def test_what_could_not_be_told_is_told_as_it_is_then() -> None:
    news = news_of(ALL)
    news.due(0.0)

    news.hear(status("p1", configurations=(HALF,)), 2.0)

    [told] = news.due(2.0)
    assert told.configurations == (HALF,)


def test_a_plugin_that_fell_silent_runs_nothing_that_anybody_knows() -> None:
    news = news_of(ALL)
    tell(news, 0.0)

    assert tell(news, REPORT_SECONDS + SILENT_AFTER_SECONDS) == []


def test_a_plugin_of_before_tells_nothing() -> None:
    assert tell(news_of(), 0.0) == []


def test_the_sidecar_tells_what_it_screens_by_for_each_model_that_speaks() -> None:
    rows = 0.01 * np.random.default_rng(0).standard_normal((2000, 8)) + np.eye(8)[0]
    reference = fit.fit(rows, np.arange(len(rows)), model="m", layer=1).reference
    news = news_of()
    news.hear(status("p2", model="another"), 0.0)
    news.screen(ScreenPolicy(baseline_rate=0.25), reference)

    told = tell(news, 0.0)

    assert [(one.source, one.hop, one.model) for one in told] == [
        ("sidecar-1", Hop.SIDECAR, "another"),
        ("sidecar-1", Hop.SIDECAR, "m"),
    ]
    policy, anomaly = told[0].configurations
    assert (policy.kind, json.loads(policy.content)["baseline_rate"]) == (Kind.SCREEN_POLICY, 0.25)
    assert (anomaly.kind, json.loads(anomaly.content)["calibration_n"]) == (
        Kind.ANOMALY_REFERENCE,
        reference.calibration_n,
    )
    assert all(one.digest == digest(one.content) for one in told[0].configurations)
