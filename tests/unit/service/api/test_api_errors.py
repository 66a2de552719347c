import json
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from openapi_spec_validator import validate
from prometheus_client import CollectorRegistry

from service.api.app import create_app
from service.api.deps import Resources
from service.api.http import openapi
from service.errors import Problem
from service.metrics import Metrics
from service.store.engine import create_engine, session_factory
from tests.support import ROOT


@pytest.fixture
def app() -> Iterator[FastAPI]:
    engine = create_engine("postgresql://nobody@127.0.0.1:1/none")  # never reached
    yield create_app(
        Resources(engine=engine, sessions=session_factory(engine), metrics=Metrics(CollectorRegistry()))
    )
    engine.dispose()


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/v1/flags/", 404, "not_found"),
        ("POST", "/v1/flags", 405, "method_not_allowed"),
        ("DELETE", "/v1/requests/a", 405, "method_not_allowed"),
        ("GET", "/v1/flags", 401, "missing_key"),
    ],
)
def test_every_failure_is_a_problem_document(
    app: FastAPI, method: str, path: str, status: int, code: str
) -> None:
    answer = TestClient(app).request(method, path)

    assert answer.headers["content-type"] == "application/problem+json"
    problem = Problem.model_validate(answer.json())
    assert (answer.status_code, problem.status, problem.code) == (status, status, code)
    assert problem.type == f"urn:subtext:problem:{code}"


def test_a_method_that_a_path_does_not_take_is_told_those_that_it_does(app: FastAPI) -> None:
    allowed = {
        path: TestClient(app).put(path).headers["allow"] for path in ("/v1/flags", "/v1/legal-holds")
    }

    assert allowed == {"/v1/flags": "GET", "/v1/legal-holds": "GET, POST"}


def test_a_bug_is_a_500_problem_that_tells_nothing_inside(app: FastAPI) -> None:
    @app.get("/bug")
    def bug() -> None:
        raise RuntimeError("inner detail")

    answer = TestClient(app, raise_server_exceptions=False).get("/bug")

    assert answer.status_code == 500
    assert Problem.model_validate(answer.json()).code == "internal_error"
    assert "inner detail" not in answer.text


def test_answers_under_v1_are_never_cached(app: FastAPI) -> None:
    client = TestClient(app)

    assert client.get("/v1/flags").headers["cache-control"] == "no-store"
    assert "cache-control" not in client.get("/healthz").headers


def test_the_openapi_document_is_valid_and_describes_errors_as_problems() -> None:
    document = json.loads(openapi.document())

    validate(document)
    assert document["openapi"].startswith("3.1")
    assert set(document["components"]["securitySchemes"]) == {"bearer", "apiKey", "session"}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["summary"]
            if path.startswith("/v1/"):
                assert list(operation["responses"]["401"]["content"]) == ["application/problem+json"]
                assert operation["security"]


def test_the_committed_openapi_document_is_current() -> None:
    committed = (ROOT / "docs" / "openapi.json").read_text(encoding="utf-8")

    assert committed == openapi.document(), "run: subtext service --openapi > docs/openapi.json"


def test_operation_ids_are_what_generated_clients_rely_on() -> None:
    document = json.loads(openapi.document())

    assert {
        path: ", ".join(operation["operationId"] for operation in operations.values())
        for path, operations in document["paths"].items()
    } == {
        "/v1/explanations": "list_explanations",
        "/v1/explanations/{explanation_id}": "get_explanation",
        "/v1/requests": "list_requests",
        "/v1/requests/{request_id}": "get_request",
        "/v1/traces/{trace_id}": "get_trace",
        "/v1/captures/{capture_id}/positions": "list_positions",
        "/v1/flags": "list_flags",
        "/v1/discoveries": "list_discoveries",
        "/v1/incidents": "list_incidents",
        "/v1/incidents/{incident_id}": "get_incident",
        "/v1/incidents/{incident_id}/transitions": "change_state",
        "/v1/incidents/{incident_id}/assignee": "assign_incident",
        "/v1/incident-events": "list_incident_events",
        "/v1/triage": "get_triage",
        "/v1/reporting-clocks": "list_reporting_clocks",
        "/v1/precision": "list_precision",
        "/v1/detectors": "list_detectors",
        "/v1/coverage": "get_coverage",
        "/v1/coverage/statement": "get_coverage_statement",
        "/v1/configuration": "get_configuration",
        "/v1/configuration/changes": "list_configuration_changes",
        "/v1/configuration/comparison": "get_configuration_comparison",
        "/v1/configuration/versions/{digest}": "get_configuration_version",
        "/v1/concepts": "list_concepts",
        "/v1/concepts/prevalence": "list_prevalences",
        "/v1/policy/dry-run": "dry_run_policy",
        "/v1/prevalence": "get_prevalence",
        "/v1/models": "list_models",
        "/v1/decoders": "list_decoders",
        "/v1/access-log": "list_access_log",
        "/v1/access-rights": "list_access_rights",
        "/v1/keys": "list_keys, make_key",
        "/v1/keys/{key_id}/revoke": "revoke_key",
        "/v1/exports": "create_export, list_exports",
        "/v1/exports/{export_id}": "get_export",
        "/v1/exports/{export_id}/download": "download_export",
        "/v1/subjects/lookup": "look_up_subject",
        "/v1/subjects/{subject_key}": "get_subject",
        "/v1/erasures": "ask_for_erasure, list_erasures",
        "/v1/erasures/{erasure_id}": "get_erasure",
        "/v1/erasures/{erasure_id}/decision": "decide_on_erasure",
        "/v1/log/checkpoint": "get_log_checkpoint",
        "/v1/log/proof": "get_log_proof",
        "/v1/retention": "get_retention, set_retention",
        "/v1/retention/certificates": "list_deletion_certificates",
        "/v1/retention/certificates/{certificate_id}": "get_deletion_certificate",
        "/v1/retention/versions": "list_retention_versions",
        "/v1/retention/versions/{version_id}/decision": "decide_on_retention",
        "/v1/live": "get_live",
        "/v1/legal-holds": "list_legal_holds, place_legal_hold",
        "/v1/legal-holds/{hold_id}/lift": "lift_legal_hold",
        "/auth/session": "get_session",
        "/auth/key": "sign_in_with_key",
        "/auth/logout": "sign_out",
        "/healthz": "get_health",
        "/readyz": "get_readiness",
        "/metrics": "get_metrics",
    }
