"""Prometheus, Alertmanager and Grafana files, checked as data: nothing here needs their binaries."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.queries import DASHBOARDS_DIR, RULES_DIR, selectors, shipped_queries
from tests.support import ROOT

DEPLOY = ROOT / "deploy"
ALERT_TESTS = sorted((DEPLOY / "prometheus" / "tests").glob("*_test.yml"))
DURATION = re.compile(r"(\d+(ms|[smhdwy]))+")
METRIC = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def rules() -> list[dict[str, Any]]:
    return [
        rule
        for path in sorted(RULES_DIR.glob("*.yml"))
        for group in load(path)["groups"]
        for rule in group["rules"]
    ]


def cases(path: Path) -> list[dict[str, Any]]:
    return [case for test in load(path)["tests"] for case in test["alert_rule_test"]]


ALERTS = [rule for rule in rules() if "alert" in rule]
RECORDS = [rule for rule in rules() if "record" in rule]


def test_the_rule_files_hold_only_keys_that_prometheus_knows() -> None:
    for path in RULES_DIR.glob("*.yml"):
        document = load(path)
        assert set(document) == {"groups"}
        names = [group["name"] for group in document["groups"]]
        assert len(set(names)) == len(names)
        for group in document["groups"]:
            assert set(group) <= {"name", "interval", "rules"}
    for alert in ALERTS:
        assert set(alert) <= {"alert", "expr", "for", "labels", "annotations"}
        assert DURATION.fullmatch(alert.get("for", "1m"))
    for record in RECORDS:
        assert set(record) == {"record", "expr"}
        assert METRIC.fullmatch(record["record"])
        assert record["record"].count(":") == 2, "level:metric:operations"


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_every_alert_says_how_bad_what_and_what_to_do(alert: dict[str, Any]) -> None:
    assert alert["alert"].startswith("Subtext")
    assert alert["labels"]["severity"] in {"page", "ticket", "none"}
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    runbook = ROOT / alert["annotations"]["runbook_url"]
    assert runbook.is_file()
    assert alert["alert"] in runbook.read_text(), "the runbook names the alerts that it is for"


def test_the_alerts_that_the_audit_needs_exist() -> None:
    names = {alert["alert"].removeprefix("Subtext") for alert in ALERTS}

    blind = {"AuditBlind", "CaptureOff", "CaptureAbsent", "RequestsUnseen", "DecodingStopped"}
    loss = {"Dropping", "BacklogOld", "DeadLetters"}
    verdicts = {"FlagRateHigh", "AnomalyRateHigh", "DecoderUnverified", "DecoderFidelityDropped"}
    trust = {"DecoderNotTrusted", "DecoderUncalibrated"}
    assert blind | loss | verdicts | trust <= names


def test_an_annotation_uses_only_labels_that_its_expression_keeps() -> None:
    for alert in ALERTS:
        used = set(re.findall(r"\$labels\.(\w+)", " ".join(alert["annotations"].values())))
        kept = set(re.findall(r"\w+", alert["expr"]))
        for name in used - {"job", "instance"}:
            recorded = [rule["expr"] for rule in RECORDS if rule["record"] in alert["expr"]]
            assert name in kept or any(name in expr for expr in recorded), (alert["alert"], name)


def test_every_alert_has_a_promtool_test_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    tested = [case for path in ALERT_TESTS for case in cases(path)]
    fires = {case["alertname"] for case in tested if case.get("exp_alerts")}
    stays_quiet = {case["alertname"] for case in tested if not case.get("exp_alerts")}
    names = {alert["alert"] for alert in ALERTS}

    assert fires == names
    assert stays_quiet == names - {"SubtextWatchdog"}  # it fires always


def test_prometheus_scrapes_every_process_once_and_reads_the_rules() -> None:
    config = load(DEPLOY / "prometheus" / "prometheus.yml")
    jobs = [job["job_name"] for job in config["scrape_configs"]]

    assert config["rule_files"] == ["rules/*.yml"]
    assert len(set(jobs)) == len(jobs)
    assert {
        "vllm",
        "subtext-sidecar",
        "subtext-worker",
        "subtext-service",
        "subtext-log",
        "subtext-keeper",
    } <= set(jobs)


def test_alertmanager_routes_every_severity_to_a_receiver_that_exists() -> None:
    config = load(DEPLOY / "alertmanager" / "alertmanager.yml")
    receivers = {receiver["name"]: receiver for receiver in config["receivers"]}
    routes = config["route"]["routes"]
    routed = set(
        re.findall(r'severity="(\w+)"', " ".join(m for route in routes for m in route["matchers"]))
    )

    assert {config["route"]["receiver"], *(route["receiver"] for route in routes)} == set(receivers)
    assert {alert["labels"]["severity"] for alert in ALERTS} <= routed | {"ticket"}
    for receiver in receivers.values():
        assert all(
            hook["url_file"].startswith("/run/secrets/") and "url" not in hook
            for hook in receiver["webhook_configs"]
        )


def test_alertmanager_inhibits_only_alerts_that_exist() -> None:
    config = load(DEPLOY / "alertmanager" / "alertmanager.yml")
    names = {alert["alert"] for alert in ALERTS}

    for rule in config["inhibit_rules"]:
        for matcher in rule["source_matchers"] + rule["target_matchers"]:
            label, operator, value = re.fullmatch(r'(\w+)(=~|=)"(.+)"', matcher).groups()  # type: ignore[union-attr]
            assert label == "alertname"
            pattern = value if operator == "=~" else re.escape(value)
            assert any(re.fullmatch(pattern, name) for name in names), matcher


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((DASHBOARDS_DIR / "subtext.json").read_text())
    return loaded


def test_the_dashboard_has_a_fixed_identity_and_takes_its_data_source_from_a_variable() -> None:
    board = dashboard()
    ids = [panel["id"] for panel in board["panels"]]

    assert board["uid"] == "subtext-overview"
    assert board["editable"] is False
    assert len(set(ids)) == len(ids)
    assert {variable["name"] for variable in board["templating"]["list"]} == {
        "datasource",
        "model",
        "console",
    }
    for panel in board["panels"]:
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}"
            assert panel["targets"], panel["title"]


def test_no_two_panels_of_the_dashboard_overlap() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, (panel["title"], taken[x, y])
                taken[x, y] = panel["title"]


@pytest.mark.parametrize(
    "metric",
    [
        "subtext_requests_seen_total",
        "subtext_activations_dropped_total",
        "subtext_stream_oldest_unsettled_age_seconds",
        "subtext_explanation_fve_ratio_bucket",
        "subtext_explanation_fve_beyond_token_ratio_bucket",
        "subtext_decoder_health_ratio",
        "subtext_concept_flags_total",
        "subtext_anomaly_activations_total",
        "subtext_anomaly_requests_tested_total",
        "subtext_anomaly_request_discoveries_total",
        "subtext_canary_recall_upper_limit_ratio",
        "subtext_canary_window_runs",
        "subtext_canary_lost_total",
        "subtext_log_checkpoint_age_seconds",
        "subtext_capture_overhead_seconds_bucket",
        "vllm:time_to_first_token_seconds_bucket",
        "vllm:inter_token_latency_seconds_bucket",
    ],
)
def test_the_dashboard_shows(metric: str) -> None:
    panels = [query for query in shipped_queries() if query.source.startswith("subtext.json")]

    assert any(selector.metric == metric for query in panels for selector in selectors(query.expr))


def test_the_dashboards_links_lead_to_pages_of_the_console_that_take_what_they_say() -> None:
    known = {
        "/": set(),
        "/review": set(),
        "/calibration": set(),
        "/coverage": {"from", "to"},
        "/search": {"concept", "max_anomaly_p", "captured_after", "captured_before"},
    }
    board = dashboard()
    links = [*board["links"]]
    for panel in board["panels"]:
        links += panel.get("links", []) + panel.get("fieldConfig", {}).get("defaults", {}).get("links", [])
    routes = (ROOT / "service/console/web/src/app/routes.tsx").read_text()

    assert len(links) >= 8
    for link in links:
        base, _, rest = link["url"].partition("/console")
        path, _, query = rest.partition("?")
        assert base == "${console:raw}"
        assert {part.split("=", 1)[0] for part in query.split("&") if part} <= known[path]
        assert f'"{path}' in routes


def test_grafana_is_provisioned_from_files_that_compose_mounts() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    source = load(provisioning / "datasources" / "prometheus.yml")["datasources"][0]
    provider = load(provisioning / "dashboards" / "subtext.yml")["providers"][0]

    assert source["url"] == "http://prometheus:9090"
    assert source["editable"] is False
    assert provider["options"]["path"] == "/etc/grafana/dashboards"
