"""Nobody meets a row of another tenant: by SQL as the service's role, and by every operation of the API."""

import datetime as dt
import re
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session, sessionmaker

from service import auth
from service.exports import files
from service.retention import placing
from service.store import identity, keys, roles
from service.store.access.tables import Action
from service.store.access.write import Entry, add_entry
from service.store.canary import runs
from service.store.canary.runs import NewRun
from service.store.configuration import write
from service.store.configuration.write import Report
from service.store.engine import session_factory
from service.store.evidence import proof
from service.store.evidence.tables import LogCheckpoint, LogLeaf, LogNode
from service.store.people import sessions as people
from service.store.retention.tables import RetentionRun
from service.store.tables import Base, CanaryReading
from service.store.tenants import row_security, scope
from service.store.tenants.read import of_each
from service.store.tenants.tables import Tenant
from service.store.write.concepts import NewConcept, register_concepts
from subtext_sidecar.contract.configuration import Kind, configuration
from subtext_sidecar.contract.counters import Hop
from tests.integration.service import seed
from tests.support.people import sign_in

Sessions = sessionmaker[Session]
ACME = identity.tenant_id("acme")
TRACE = "a" * 32
RUNS = configuration(Kind.WORKER, {"limit": "tiny"})
UNFILLED = {"webhook_deliveries", "canary_flags", "log_tombstones"}
"""Tables that `plant` leaves empty."""
UNREAD = {"vectors", "vector_keys"}
"""Tables that the reader may not read at all, see test_roles.py."""


class Planted(NamedTuple):
    """Ids of what one tenant has."""

    explanation: uuid.UUID
    capture: uuid.UUID
    incident: uuid.UUID
    hold: uuid.UUID
    export: uuid.UUID
    erasure: uuid.UUID
    certificate: uuid.UUID
    version: uuid.UUID
    """Of a period that waits."""


def plant(session: Session, tenant: uuid.UUID, model: str = "tiny") -> Planted:
    """Store a tenant's rows, by names that every tenant may have."""
    scope.set_tenant(session, tenant)
    audited = seed.add_model(session, model)
    explanation = seed.add_explanation(
        session, audited, concept="deception", claims=seed.CLAIMS, trace_id=TRACE, subject=seed.SUBJECT
    )
    incident = seed.add_incident(session, seed.add_flag(session, audited))
    seed.add_window(session, audited)
    seed.add_coverage(session, hop="plugin", model=model, source=str(tenant), rows_sampled=40)
    concept = NewConcept(name="deception", version=1, digest=f"{tenant}/{model}", definition={})
    register_concepts(session, audited.model.id, [concept])
    session.add(
        CanaryReading(
            sample_id=uuid.uuid4(),
            decoder_id=audited.decoder.id,
            model_id=audited.model.id,
            nonce="n",
            capture_id=uuid.uuid4(),
            layer=20,
            position=1,
            captured_at=seed.START,
            text=seed.SECRET_TEXT,
            fve=0.4,
            verified=True,
            concepts=[],
        )
    )
    runs.add(
        session, NewRun(model=model, concept="deception", kind="positive", outcome="flagged", lost_at=None)
    )
    report = Report(source=str(tenant), hop=Hop.WORKER, model=model, layer=20, configuration=RUNS)
    write.note(session, [report])
    about = {"subject": str(explanation.id)}
    entry = Entry(action=Action.LOG_READ, operation="test", key_name=f"key of {tenant}", details=about)
    add_entry(session, entry)
    session_of(session, tenant, None)
    explanation.log_salt = bytes(16)
    session.flush()
    if session.get(LogLeaf, (tenant, 0)) is None:  # a tenant has one log, whichever its models
        commitment = proof.explanation_commitment(session, explanation.id)
        session.add_all(
            [
                LogLeaf(tenant_id=tenant, seq=0, kind="explanation", at=seed.START, commitment=commitment),
                LogNode(tenant_id=tenant, level=1, number=0, hash=bytes(32)),
                LogCheckpoint(tenant_id=tenant, size=1, note="a note"),
            ]
        )
    session.flush()
    hold = seed.add_hold(session, seed.add_actor(session, tenant), model=model)
    version = seed.add_period(session, 400, model=model, by=seed.add_actor(session, tenant))
    done = RetentionRun(
        id=uuid.uuid4(),
        model_id=audited.model.id,
        version_id=version,
        captured_before=seed.START - dt.timedelta(days=400),
        finished_at=seed.START,
    )
    session.add(done)
    actor = seed.add_actor(session, tenant)
    waiting = seed.add_period(session, 300, model=model, by=actor, is_confirmed=False)
    certificate = seed.add_certificate(session, audited.model.id)
    asked = placing.get_hold(session, hold)
    assert asked is not None
    placing.lift(session, asked, "over", seed.add_actor(session, tenant))
    export, erasure = seed.add_export(session).id, seed.add_erasure(session)
    return Planted(
        explanation.id,
        seed.capture_of(audited, "chat-1"),
        incident.id,
        hold,
        export,
        erasure,
        certificate,
        waiting,
    )


@pytest.fixture
def planted(sessions: Sessions) -> Planted:
    """What the default tenant has; `acme` is there and has nothing."""
    with sessions.begin() as session:
        session.add(Tenant(id=ACME, name="acme"))
        session.flush()
        return plant(session, scope.DEFAULT_ID)


def key_of(sessions: Sessions, tenant: uuid.UUID, models: list[str] | None = None) -> dict[str, str]:
    secret = auth.new_secret()
    with sessions.begin() as session:
        keys.add_key(
            session,
            name="test",
            secret_sha256=auth.digest(secret),
            scopes=["admin"],
            tenant_id=tenant,
            models=models,
        )
    return {"Authorization": f"Bearer {secret}"}


def session_of(session: Session, tenant: uuid.UUID, models: list[str] | None) -> dict[str, str]:
    """Let a person sign in who may do everything; return the headers of his browser."""
    with scope.meanwhile(session, tenant):
        return sign_in(session, f"person of {tenant}", models=models)


def add_key(sessions: Sessions) -> uuid.UUID:
    """Add a key of the default tenant, to revoke."""
    with sessions.begin() as session:
        digest = auth.digest(auth.new_secret())
        return keys.add_key(session, name="old", secret_sha256=digest, scopes=["admin"]).id


def test_no_table_with_a_tenant_is_without_row_level_security(engine: Engine) -> None:
    with engine.connect() as connection:
        found = connection.execute(
            text(
                "SELECT relname, relrowsecurity AND relforcerowsecurity FROM pg_class"
                " WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
                " AND NOT relispartition"
            )
        )
        tables: dict[str, bool] = dict(map(tuple, found))
        policies = connection.execute(text("SELECT tablename, unnest(roles)::text FROM pg_policies")).all()
        is_open = row_security.list_open(connection)

    secured = {table for table, is_secured in tables.items() if is_secured}
    assert secured == set(tables) - row_security.WITHOUT
    assert set(Base.metadata.tables) <= set(tables)
    assert {tuple(row) for row in policies} == {
        (table, role)
        for table in secured
        for role in roles.ROLES
        if role != roles.SEQUENCER or table.startswith("log_")
    }
    assert is_open == []


def counts(url: str, tenant: uuid.UUID | None, *, role: str | None = None) -> dict[str, int]:
    """Return how many rows of each table the login meets in a transaction of this tenant."""
    with psycopg.connect(url) as connection:
        if role is not None:
            connection.execute("SELECT set_config('role', %s, true)", [role])
        if tenant is not None:
            connection.execute("SELECT set_config(%s, %s, true)", [scope.SETTING, str(tenant)])
        found = {}
        for table in sorted(set(Base.metadata.tables) - row_security.WITHOUT - UNREAD):
            row = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()  # noqa: S608
            found[table] = 0 if row is None else row[0]
        return found


@pytest.mark.usefixtures("planted")
def test_by_sql_the_reader_meets_the_rows_of_the_named_tenant_alone(
    database_url: str, reader_url: str, sessions: Sessions
) -> None:
    own = counts(database_url, None)
    nothing = dict.fromkeys(own, 0)

    assert {table for table, rows in own.items() if not rows} == UNFILLED
    # A superuser who steps down is a reader like any other.
    for url, role in ((reader_url, None), (database_url, roles.READER)):
        assert counts(url, None, role=role) == nothing
        assert counts(url, ACME, role=role) == nothing
        assert counts(url, scope.DEFAULT_ID, role=role) == own
    with sessions.begin() as session:
        plant(session, ACME)
    # The default tenant's log commits to everybody's definitions.
    of_acme = own | {"log_pending": own["log_pending"] - 1}
    assert counts(reader_url, scope.DEFAULT_ID) == own | {"log_pending": own["log_pending"] + 1}
    assert counts(reader_url, ACME) == of_acme
    # Where one login owns all and cannot step down.
    assert counts(database_url, ACME, role=roles.OWNER) == of_acme | {"concept_versions": 2}
    assert counts(database_url, None, role=roles.OWNER) == {table: 2 * rows for table, rows in own.items()}


@pytest.mark.usefixtures("planted")
def test_by_sql_the_reader_changes_and_adds_nothing_of_another_tenant(reader_url: str) -> None:
    with psycopg.connect(reader_url) as connection:
        connection.execute("SELECT set_config(%s, %s, true)", [scope.SETTING, str(ACME)])

        assert connection.execute("UPDATE incidents SET state = 'dismissed'").rowcount == 0
        assert connection.execute("UPDATE api_keys SET last_used_at = now()").rowcount == 0
        assert connection.execute("UPDATE sessions SET last_seen_at = now()").rowcount == 0
    with psycopg.connect(reader_url) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        # Without a tenant it would be the default tenant's.
        connection.execute("INSERT INTO webhook_messages (event_id) VALUES (gen_random_uuid())")


def test_a_key_is_found_by_its_digest_and_no_other_with_it(sessions: Sessions, reader: Engine) -> None:
    secret = key_of(sessions, scope.DEFAULT_ID)["Authorization"].removeprefix("Bearer ")
    key_of(sessions, scope.DEFAULT_ID)

    with session_factory(reader)() as session:
        scope.look_for_key(session, auth.digest(secret))
        assert [key.secret_sha256 for key in keys.list_keys(session)] == [auth.digest(secret)]
        assert people.list_sessions(session) == []


def test_so_is_a_session(sessions: Sessions, reader: Engine) -> None:
    with sessions.begin() as session:
        token = session_of(session, scope.DEFAULT_ID, None)["Cookie"].removeprefix("__Host-subtext=")
        session_of(session, scope.DEFAULT_ID, None)

    with session_factory(reader)() as session:
        scope.look_for_session(session, auth.digest(token))
        assert [one.token_sha256 for one in people.list_sessions(session)] == [auth.digest(token)]
        assert keys.list_keys(session) == []


@pytest.mark.usefixtures("planted")
def test_the_service_looks_at_each_tenant_apart(reader: Engine, sessions: Sessions) -> None:
    with sessions.begin() as session:
        plant(session, ACME)

    found = of_each(session_factory(reader), lambda session: session.scalars(MODELS).all())

    assert found == [["tiny"], ["tiny"]]


MODELS = text("SELECT name FROM models")

DAY: Mapping[str, str] = {"from": "2026-11-23T00:00:00Z", "to": "2026-11-24T00:00:00Z"}
# What an operation needs beyond its path.
QUERIES: Mapping[str, Mapping[str, str]] = {
    "list_requests": {"trace_id": TRACE},
    "list_positions": {"model": "tiny"},
    "get_prevalence": {
        "model": "tiny",
        "concept": "deception",
        "from": "2026-11-23T00:00:00Z",
        "to": "2026-11-24T00:00:00Z",
    },
    "get_configuration_comparison": {"model": "tiny", "at": "2026-11-23T05:00:00Z"},
    "get_coverage": {"from": "2026-11-23T05:00:00Z", "to": "2026-11-23T05:02:00Z"},
    "get_coverage_statement": DAY,
    "get_triage": DAY,
    "list_concepts": DAY,
    "list_detectors": DAY,
    "list_prevalences": DAY,
    "get_log_proof": {"explanation_id": "{explanation_id}"},
}
TENANTS_OWN = {
    "list_keys",
    "make_key",
    "revoke_key",
    "list_access_log",
    "list_access_rights",
    "list_legal_holds",
    "place_legal_hold",
    "get_retention",
    "list_retention_versions",
    "set_retention",
    "create_export",
    "list_exports",
    "list_erasures",
    "get_erasure",
    "ask_for_erasure",
}
"""What a tenant's keys did and asked for, whichever models they are for; each call adds to it."""
NAMING_A_MODEL = {"place_legal_hold", "set_retention"}
NEEDING_PURPOSE = {"ask_for_erasure", "make_key", "revoke_key"}
OF_ALL_MODELS = {"ask_for_erasure", "decide_on_erasure"}
"""What a key for some models alone is refused."""
TIME = re.compile(r"\d{4}-\d\d-\d\dT[0-9:.+]+Z?")
OWN_REQUESTS = re.compile(r'"erasures":{[^}]*}|"legal_holds":\[[^\]]*\]')
"""In the coverage statement: a tenant's own erasures and holds, to which each call adds one."""
BODIES: Mapping[str, Any] = {
    "change_state": {"to": "acknowledged", "version": 2, "reason_code": "under_review"},
    "assign_incident": {"version": 3, "assignee": "me"},
    "place_legal_hold": {"scope": {"concept": "deception"}, "reason": "a case"},
    "set_retention": {"retention_class": "ai_act", "period_days": 200, "reason": "a duty"},
    "lift_legal_hold": {"reason": "over"},
    "create_export": {"kinds": ["flags"], **DAY},
    "decide_on_erasure": {"decision": "confirmed", "reason": "seen"},
    "decide_on_retention": {"decision": "objected", "reason": "a mistake"},
    "look_up_subject": {"subject_id": "somebody"},
    "dry_run_policy": {"model": "tiny", "policy": {}, **DAY},
    "make_key": {"name": "n", "scopes": ["coverage:read"]},
    "ask_for_erasure": {"scope": "capture", "identifier": str(uuid.UUID(int=1))},
}


def body_of(name: str, headers: dict[str, str]) -> Any:
    """Return the body; a key is made with the secret of the key that asks, a session has none."""
    if name != "make_key":
        return BODIES.get(name)
    return BODIES[name] | {"own_secret": headers.get("Authorization", "none").removeprefix("Bearer ")}


def ask_all(
    client: TestClient, app: FastAPI, headers: dict[str, str], ids: Mapping[str, str]
) -> dict[str, Any]:
    """Return status and answer of every operation that needs a key, by its name."""
    answers = {}
    for path, operations in app.openapi()["paths"].items():
        if not path.startswith("/v1/"):
            continue
        for method, operation in operations.items():
            name = operation["operationId"]
            answer = client.request(
                method,
                path.replace(":any_text", "").format_map(ids),
                params={key: value.format_map(ids) for key, value in QUERIES.get(name, {}).items()},
                json=body_of(name, headers),
                headers=headers | ({"Subtext-Purpose": "audit"} if name in NEEDING_PURPOSE else {}),
            )
            answers[name] = (answer.status_code, answer.text, answer.headers.get("link"))
    return answers


def test_by_no_operation_is_anything_told_of_another_tenant(
    client: TestClient, app: FastAPI, sessions: Sessions, planted: Planted, exports_folder: Path
) -> None:
    file = files.path_of(exports_folder, scope.DEFAULT_ID, planted.export)
    file.parent.mkdir()
    file.write_bytes(b"a file")
    ids = {
        "explanation_id": str(planted.explanation),
        "capture_id": str(planted.capture),
        "incident_id": str(planted.incident),
        "hold_id": str(planted.hold),
        "export_id": str(planted.export),
        "erasure_id": str(planted.erasure),
        "certificate_id": str(planted.certificate),
        "version_id": str(planted.version),
        "request_id": "chat-1",
        "trace_id": TRACE,
        "digest": RUNS.digest,
        "subject_key": seed.SUBJECT,
        "key_id": str(add_key(sessions)),
    }
    unknown = {
        "explanation_id": str(uuid.uuid4()),
        "capture_id": str(uuid.uuid4()),
        "incident_id": str(uuid.uuid4()),
        "hold_id": str(uuid.uuid4()),
        "export_id": str(uuid.uuid4()),
        "erasure_id": str(uuid.uuid4()),
        "certificate_id": str(uuid.uuid4()),
        "version_id": str(uuid.uuid4()),
        "request_id": "chat-9",
        "trace_id": "e" * 32,
        "digest": "0" * 64,
        "subject_key": "0" * 32,
        "key_id": str(uuid.uuid4()),
    }
    own, other = key_of(sessions, scope.DEFAULT_ID), key_of(sessions, ACME)
    with sessions.begin() as session:
        person = session_of(session, ACME, None)
        elsewhere = session_of(session, scope.DEFAULT_ID, ["another"])

    def told(headers: dict[str, str], named: Mapping[str, str]) -> dict[str, Any]:
        """Leave out the ids that were asked for, and times."""
        answers = ask_all(client, app, headers, named)
        for name, (status, body, link) in answers.items():
            for asked in named.values():
                body = body.replace(asked, "ID")  # noqa: PLW2901
            assert "ID" not in "".join(OWN_REQUESTS.findall(body)), name
            answers[name] = (status, OWN_REQUESTS.sub("", TIME.sub("TIME", body)), link)
        return answers

    for stranger in (other, person, elsewhere):
        answers, as_unknown = told(stranger, ids), told(stranger, unknown)
        assert {name for name, answer in answers.items() if answer != as_unknown[name]} <= TENANTS_OWN
        for name, (status, body, _) in answers.items():
            is_refused = name in OF_ALL_MODELS and stranger is elsewhere
            # A session has no secret to make a key with.
            is_refused = is_refused or (name == "make_key" and stranger is not other)
            # The key is of his tenant, and for more models than he is.
            is_refused = is_refused or (name == "revoke_key" and stranger is elsewhere)
            allowed = {403} if is_refused else {200, 202, 404}
            # A key for some models alone has to name one of them.
            assert status in allowed or (name in NAMING_A_MODEL and status == 422), (name, body)
            for word in (seed.SECRET_TEXT, "tiny", str(planted.incident), "rows_sampled"):
                assert word not in body or name in {"get_prevalence", "get_coverage"}, name
    answers = ask_all(client, app, other, ids)
    assert answers["get_erasure"][0] == 404
    for name in TENANTS_OWN:
        assert str(scope.DEFAULT_ID) not in answers[name][1]
    # The same requests tell their owner something: none was answered with nothing for another reason.
    answers = ask_all(client, app, own, ids)
    for name, (status, body, _) in answers.items():
        assert status in {200, 202}, (name, body)
        assert '"items":[]' not in body, name


def test_a_key_for_some_models_reads_these_alone(
    client: TestClient, sessions: Sessions, planted: Planted
) -> None:
    assert planted
    with sessions.begin() as session:
        plant(session, scope.DEFAULT_ID, "second")
    headers = key_of(sessions, scope.DEFAULT_ID, ["second", "none"])
    window = QUERIES["get_coverage"]

    for path in ("explanations", "flags", "incidents", "discoveries", "precision", "decoders"):
        items = client.get(f"/v1/{path}", headers=headers).json()["items"]
        assert {item["model"] for item in items} == {"second"}, path
    assert [one["name"] for one in client.get("/v1/models", headers=headers).json()["items"]] == ["second"]
    coverage = client.get("/v1/coverage", params=window, headers=headers).json()
    assert {one["model"] for one in coverage["models"]} == {"second"}


def test_a_cursor_of_another_tenant_is_none(
    client: TestClient, sessions: Sessions, planted: Planted, headers_for: Callable[..., dict[str, str]]
) -> None:
    assert planted
    with sessions.begin() as session:
        plant(session, scope.DEFAULT_ID, "second")
        plant(session, ACME)
        plant(session, ACME, "second")
    own = headers_for("admin")
    cursor = client.get("/v1/explanations", params={"limit": 1}, headers=own).json()["next_cursor"]
    asked = {"limit": 1, "cursor": cursor}

    assert client.get("/v1/explanations", params=asked, headers=own).status_code == 200
    refused = client.get("/v1/explanations", params=asked, headers=key_of(sessions, ACME))

    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (422, "foreign_cursor")
