import re

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine, event

from service.api.app import create_app
from service.api.deps import Resources
from service.api.readiness import readiness
from service.metrics import Metrics
from service.store import migrate
from service.store.engine import create_engine, session_factory

Headers = dict[str, str]


def test_a_migrated_database_makes_it_ready(client: TestClient) -> None:
    answer = client.get("/readyz")

    assert answer.status_code == 200
    assert answer.json()["ready"] is True
    assert {name: check["ok"] for name, check in answer.json()["checks"].items()} == {
        "postgres": True,
        "migrations": True,
    }


def test_a_database_behind_head_makes_it_unready_and_tells_the_command(
    client: TestClient, database_url: str
) -> None:
    migrate.downgrade(database_url, "base")

    answer = client.get("/readyz")

    assert answer.status_code == 503
    assert answer.json()["checks"]["postgres"]["ok"] is True
    assert "subtext migrate" in answer.json()["checks"]["migrations"]["detail"]


@pytest.mark.parametrize("revision", ["base", "0001"])
def test_a_database_behind_head_answers_503_problems_that_name_the_command(
    client: TestClient, database_url: str, admin: Headers, revision: str
) -> None:
    migrate.downgrade(database_url, revision)

    answer = client.get("/v1/explanations", headers=admin)

    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "database_not_migrated"
    assert "subtext migrate" in answer.json()["detail"]


def test_a_thousand_probes_in_a_second_cost_the_database_one_look(
    app: FastAPI, client: TestClient, reader: Engine
) -> None:
    held: Resources = app.state.resources
    now = 0.0
    object.__setattr__(held, "readiness", readiness(reader, lambda: now))
    statements: list[str] = []
    event.listen(reader, "before_cursor_execute", lambda *heard: statements.append(heard[2]))
    client.get("/readyz")
    once = len(statements)
    assert once

    for _ in range(999):
        now += 0.001
        assert client.get("/readyz").status_code == 200
    assert len(statements) == once

    now += 0.001
    assert client.get("/readyz").status_code == 200
    assert len(statements) == 2 * once


def test_health_answers_head(client: TestClient) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        assert client.head(path).status_code == 200


def test_without_a_database_it_lives_is_unready_and_answers_503_problems() -> None:
    engine = create_engine("postgresql://nobody@127.0.0.1:1/none", connect_timeout_seconds=2)
    held = Resources(engine=engine, sessions=session_factory(engine), metrics=Metrics(CollectorRegistry()))
    client = TestClient(create_app(held))

    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == 503
    assert "127.0.0.1" not in client.get("/readyz").text
    answer = client.get("/v1/models", headers={"X-API-Key": "subtext_x"})
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "5"
    engine.dispose()


def test_metrics_count_requests_by_route_and_never_by_path(
    client: TestClient, admin: dict[str, str]
) -> None:
    client.get("/v1/requests/some-request", headers=admin)
    client.get("/v1/explanations", headers=admin)
    client.get("/nothing/here")
    client.request("BREW", "/v1/flags")

    answer = client.get("/metrics")

    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    counted = {
        (sample.labels["route"], sample.labels["method"], sample.labels["code"]): sample.value
        for sample in families["subtext_api_request_duration_seconds"].samples
        if sample.name.endswith("_count")
    }
    assert counted["/v1/requests/{request_id}", "GET", "404"] == 1
    assert counted["/v1/explanations", "GET", "200"] == 1
    assert counted["unmatched", "GET", "404"] == 1
    assert counted["/v1/flags", "OTHER", "405"] == 1
    assert "some-request" not in answer.text
    assert families["subtext_build_info"].samples[0].labels["process"] == "service"


def test_the_docs_page_needs_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/docs")

    assert page.status_code == 200
    own = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert own
    for url in own:
        assert url.startswith("/")
        assert client.get(url).status_code == 200
