"""Of every operation in the OpenAPI document: text that is shown, and every write, has one entry."""

import uuid
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import psycopg
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx2 import Response
from sqlalchemy.orm import Session, sessionmaker

from service import auth
from service.store import identity, keys
from service.store.access.tables import AccessEntry, Action
from tests.integration.service import seed
from tests.integration.service.access.stored import RUNS, Entries, Stored

Headers = dict[str, str]
RANGE = "from=2026-11-23T00:00:00Z&to=2026-11-24T00:00:00Z"
SECRETS = (seed.SECRET_TEXT, seed.SECRET_TOKEN, str(seed.SECRET_TOKEN_ID), seed.SECRET_AREA)
NEVER_LOGGED = ("THE-NOTE", "chat-1", seed.SECRET_PERSON, seed.SUBJECT)
WRITES = {Action.WRITE, Action.EXPORT, Action.KEY_CHANGE, Action.CONFIGURATION_CHANGE}


class Call(NamedTuple):
    """How an operation is called so that it shows or changes what there is."""

    path: str = ""
    """Instead of the document's, with its parameters in their place."""
    body: dict[str, Any] | None = None


# By operation id. An operation that is added later has to say here how it is called.
PERIOD = {"from": "2026-11-23T05:00:00Z", "to": "2026-11-23T06:00:00Z"}
CALLS = {
    "list_explanations": Call(),
    "get_explanation": Call("/v1/explanations/{explanation}"),
    "list_requests": Call("/v1/requests?trace_id=0af7651916cd43dd8448eb211c80319c"),
    "get_request": Call("/v1/requests/chat-1"),
    "get_trace": Call("/v1/traces/0af7651916cd43dd8448eb211c80319c"),
    "list_positions": Call("/v1/captures/{capture}/positions?model=tiny"),
    "list_flags": Call(),
    "list_discoveries": Call(),
    "list_incidents": Call(),
    "get_incident": Call("/v1/incidents/{incident}"),
    "change_state": Call(
        "/v1/incidents/{incident}/transitions",
        {"version": 1, "to": "acknowledged", "reason_code": "under_review", "note": "THE-NOTE"},
    ),
    "assign_incident": Call("/v1/incidents/{incident}/assignee", {"version": 2, "assignee": "me"}),
    "get_retention": Call(),
    "list_deletion_certificates": Call(),
    "get_deletion_certificate": Call("/v1/retention/certificates/{certificate}"),
    "list_retention_versions": Call(),
    "set_retention": Call(body={"retention_class": "ai_act", "period_days": 200, "reason": "THE-NOTE"}),
    "decide_on_retention": Call(
        "/v1/retention/versions/{version}/decision", {"decision": "objected", "reason": "THE-NOTE"}
    ),
    "list_legal_holds": Call(),
    "place_legal_hold": Call(body={"scope": {"model": "tiny"}, "reason": "THE-NOTE"}),
    "lift_legal_hold": Call("/v1/legal-holds/{hold}/lift", {"reason": "THE-NOTE"}),
    "list_incident_events": Call(),
    "get_live": Call(),
    "get_triage": Call(f"/v1/triage?{RANGE}"),
    "list_reporting_clocks": Call(),
    "list_precision": Call(),
    "list_detectors": Call(f"/v1/detectors?{RANGE}"),
    "get_coverage": Call(f"/v1/coverage?{RANGE}"),
    "get_coverage_statement": Call(f"/v1/coverage/statement?{RANGE}"),
    "get_configuration": Call(),
    "list_configuration_changes": Call(),
    "get_configuration_comparison": Call("/v1/configuration/comparison?model=tiny&at=2026-11-23T05:00:00Z"),
    "get_configuration_version": Call(f"/v1/configuration/versions/{RUNS.digest}"),
    "list_concepts": Call(),
    "dry_run_policy": Call(body={"model": "tiny", "policy": {}, **PERIOD}),
    "get_prevalence": Call(f"/v1/prevalence?model=tiny&concept=deception&{RANGE}"),
    "list_prevalences": Call(f"/v1/concepts/prevalence?{RANGE}"),
    "list_models": Call(),
    "list_decoders": Call(),
    "list_access_log": Call(),
    "list_access_rights": Call(),
    "list_keys": Call(),
    "make_key": Call(body={"name": "n", "scopes": ["coverage:read"]}),
    "revoke_key": Call("/v1/keys/{key}/revoke"),
    "create_export": Call(body={"kinds": ["explanations"], **PERIOD}),
    "list_exports": Call(),
    "get_export": Call("/v1/exports/{export}"),
    "download_export": Call("/v1/exports/{export}/download"),
    "look_up_subject": Call(body={"subject_id": seed.SECRET_PERSON}),
    "get_subject": Call(f"/v1/subjects/{seed.SUBJECT}"),
    "ask_for_erasure": Call(body={"scope": "request", "identifier": "chat-1"}),
    "decide_on_erasure": Call(
        "/v1/erasures/{erasure}/decision", {"decision": "objected", "reason": "THE-NOTE"}
    ),
    "list_erasures": Call(),
    "get_erasure": Call("/v1/erasures/{erasure}"),
    "get_log_checkpoint": Call(),
    "get_log_proof": Call("/v1/log/proof?explanation_id={explanation}"),
}
SHOWING_ACCESS = {"list_keys", "list_access_log", "list_access_rights", "look_up_subject", "get_subject"}
SHOWING_TEXT = {
    "list_explanations",
    "get_explanation",
    "get_request",
    "get_trace",
    "list_positions",
    "get_incident",
    "get_subject",
}
READING_BY_BODY = {"look_up_subject", "dry_run_policy"}
NEEDING_PURPOSE = {"ask_for_erasure", "make_key", "revoke_key"}


class Operation(NamedTuple):
    """One of the document."""

    id: str
    method: str
    path: str


def operations(app: FastAPI) -> list[Operation]:
    return [
        Operation(described["operationId"], method.upper(), path)
        for path, methods in app.openapi()["paths"].items()
        if path.startswith("/v1/")
        for method, described in methods.items()
    ]


Send = Callable[[Operation, Headers], Response]


@pytest.fixture
def send(client: TestClient, stored: Stored, sessions: sessionmaker[Session]) -> Send:
    def call(operation: Operation, headers: Headers) -> Response:
        how = CALLS[operation.id]
        ids = {
            "explanation": stored.explanations[0].id,
            "capture": stored.incident.capture_id,
            "incident": stored.incident.id,
            "hold": stored.hold,
            "export": stored.export.id,
            "erasure": stored.erasure,
            "certificate": stored.certificate,
            "version": stored.version,
            "key": add_key(sessions),
        }
        body = how.body
        if operation.id == "make_key":
            body = {**(body or {}), "own_secret": headers["Authorization"].removeprefix("Bearer ")}
        path = (how.path or operation.path).format(**ids)
        return client.request(operation.method, path, json=body, headers=headers)

    return call


def add_key(sessions: sessionmaker[Session]) -> uuid.UUID:
    """Add a key to revoke."""
    with sessions.begin() as session:
        digest = auth.digest(auth.new_secret())
        return keys.add_key(session, name="old", secret_sha256=digest, scopes=["coverage:read"]).id


def parsed(answer: Response) -> Any:
    """Return the answer's document; a signed note is none."""
    return answer.json() if "json" in answer.headers["content-type"] else {}


def objects(answer: Any) -> Iterator[dict[str, Any]]:
    """Yield every object of an answer."""
    if isinstance(answer, dict):
        yield answer
    for part in answer.values() if isinstance(answer, dict) else answer if isinstance(answer, list) else ():
        yield from objects(part)


def shown_explanations(answer: Any) -> set[uuid.UUID]:
    return {
        uuid.UUID(found["id"]) for found in objects(answer) if found.get("text") and "sample_id" in found
    }


def shown_captures(answer: Any, model: uuid.UUID) -> set[uuid.UUID]:
    """Return the captures of which the answer shows a token."""
    captures = set()
    for one in objects(answer):
        if one.get("token_text"):
            named = one if "capture_id" in one else answer  # a page of one capture names it once
            capture = named["capture_id"] and uuid.UUID(named["capture_id"])
            captures.add(identity.capture_name(capture, model, named.get("request_id", "")))
    return captures


def test_every_operation_of_the_document_has_a_call(app: FastAPI) -> None:
    assert {operation.id for operation in operations(app)} == set(CALLS)


def test_text_that_is_shown_has_one_entry_with_its_ids_and_every_write_has_one(
    app: FastAPI, send: Send, headers_for: Callable[..., Headers], entries: Entries, stored: Stored
) -> None:
    everything = headers_for("admin") | {"Subtext-Purpose": "audit; quarter 4"}
    shows = set()
    for operation in operations(app):
        answer = send(operation, everything)
        added = entries()

        assert answer.status_code in {200, 202}, (operation, answer.text)
        reads = [entry for entry in added if entry.action == Action.READ_TEXT]
        if any(secret in answer.text for secret in SECRETS):
            shows.add(operation.id)
            [entry] = reads
            assert set(entry.subject_ids) == shown_explanations(answer.json()), operation
            assert entry.subjects_total == len(entry.subject_ids)
            assert shown_captures(answer.json(), stored.incident.model_id) == set(entry.capture_ids)
            assert entry.captures_total == len(entry.capture_ids)
            assert (entry.purpose, entry.purpose_note) == ("audit", "quarter 4")
        else:
            assert reads == [], operation
        writes = [entry for entry in added if entry.action in WRITES]
        is_write = operation.method != "GET" and operation.id not in READING_BY_BODY
        is_entered = is_write or operation.id == "download_export"
        assert len(writes) == is_entered, operation
        log_reads = [entry for entry in added if entry.action == Action.LOG_READ]
        assert len(log_reads) == (operation.id in SHOWING_ACCESS), operation
        assert len(added) == len(reads) + len(writes) + len(log_reads)
        assert all(is_attributed(entry, operation) for entry in added)
        assert not [entry for entry in added if says_too_much(entry)]
    assert shows == SHOWING_TEXT


def test_what_a_key_lacks_a_scope_for_has_one_entry(
    app: FastAPI, send: Send, headers_for: Callable[..., Headers], entries: Entries
) -> None:
    nothing = headers_for()
    for operation in operations(app):
        codes = {send(operation, nothing).status_code for _ in range(3)}

        [entry] = entries()
        assert codes == {403}
        assert (entry.action, entry.operation, entry.key_name) == (Action.DENY, operation.id, "test")
        assert (entry.status, entry.result, entry.subject_ids) == (403, "missing_scope", [])


def is_attributed(entry: AccessEntry, operation: Operation) -> bool:
    return (entry.operation, entry.key_name, entry.status) == (operation.id, "test", 200)


def says_too_much(entry: AccessEntry) -> bool:
    values = [str(getattr(entry, column.key)) for column in entry.__table__.columns]
    return any(secret in value for value in values for secret in (*SECRETS, *NEVER_LOGGED))


def test_without_a_purpose_no_operation_shows_text_and_each_says_how_to_get_it(
    app: FastAPI, send: Send, headers_for: Callable[..., Headers], entries: Entries
) -> None:
    unexplained = headers_for("admin")
    unexplained.pop("Subtext-Purpose", None)
    for operation in operations(app):
        answer = send(operation, unexplained)

        assert answer.status_code in ({422} if operation.id in NEEDING_PURPOSE else {200, 202}), operation
        assert not [secret for secret in SECRETS if secret in answer.text], operation
        withheld = [found["withheld"] for found in objects(parsed(answer)) if "withheld" in found]
        assert bool(withheld) is (operation.id in SHOWING_TEXT)
        for reason in withheld:
            assert reason["code"] == "missing_purpose"
            assert "Subtext-Purpose: CODE" in reason["detail"]
            assert "incident_response" in reason["detail"]
    assert [entry for entry in entries() if entry.action == Action.READ_TEXT] == []


def test_while_the_log_cannot_be_written_text_log_and_writes_fail_and_nothing_else(
    app: FastAPI, send: Send, headers_for: Callable[..., Headers], database_url: str, client: TestClient
) -> None:
    explained = headers_for("admin") | {"Subtext-Purpose": "audit"}
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE access_log ADD CONSTRAINT is_full CHECK (false) NOT VALID")

    failed = set()
    for operation in operations(app):
        answer = send(operation, explained)
        assert not [secret for secret in SECRETS if secret in answer.text], operation
        if answer.status_code != 200:
            failed.add(operation.id)
        if operation.method == "GET" and answer.status_code != 200:
            assert (answer.status_code, answer.json()["code"]) == (503, "access_not_logged")
            assert answer.headers["retry-after"] == "5"

    assert failed == SHOWING_TEXT | SHOWING_ACCESS | {
        "change_state",
        "assign_incident",
        "place_legal_hold",
        "lift_legal_hold",
        "set_retention",
        "decide_on_retention",
        "decide_on_erasure",
        "create_export",
        "download_export",
        "ask_for_erasure",
        "make_key",
        "revoke_key",
    }
    assert 'subtext_api_access_log_failures_total{action="read_text"} 6.0' in client.get("/metrics").text


def test_captures_of_before_identities_are_named_by_what_tells_them_apart(
    client: TestClient, stored: Stored, headers_for: Callable[..., Headers], entries: Entries
) -> None:
    old = stored.explanations[-1]

    shown = client.get(f"/v1/explanations/{old.id}", headers=headers_for("admin"))

    [entry] = entries()
    model = stored.incident.model_id
    assert shown.json()["text"] == seed.SECRET_TEXT
    assert (entry.subject_ids, entry.capture_ids) == ([old.id], [identity.capture_name(None, model, "old")])


def test_a_purpose_that_is_none_is_a_422_that_names_the_codes(
    client: TestClient, stored: Stored, headers_for: Callable[..., Headers], entries: Entries
) -> None:
    headers = headers_for("admin") | {"Subtext-Purpose": "curiosity"}

    answer = client.get(f"/v1/explanations/{stored.explanations[0].id}", headers=headers)

    assert answer.status_code == 422
    [error] = answer.json()["errors"]
    assert (error["location"], error["field"]) == ("header", "Subtext-Purpose")
    assert "incident_response, compliance_review" in error["message"]
    assert entries() == []


def test_reads_of_text_are_counted_by_purpose(
    client: TestClient, stored: Stored, headers_for: Callable[..., Headers]
) -> None:
    headers = headers_for("admin") | {"Subtext-Purpose": "subject_request"}

    client.get(f"/v1/explanations/{stored.explanations[0].id}", headers=headers)

    shown = client.get("/metrics").text
    assert 'subtext_api_text_reads_total{purpose="subject_request"} 1.0' in shown
    assert 'subtext_api_text_reads_total{purpose="audit"} 0.0' in shown
