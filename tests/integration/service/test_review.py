"""A queue of incidents, who looks at each, and verdicts that take two reviewers."""

import datetime as dt
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from psycopg.errors import CheckViolation, UniqueViolation
from sqlalchemy import select, text
from sqlalchemy.orm import Session, sessionmaker

from service.evidence.incident import Histories
from service.incidents.lifecycle import EventKind
from service.store import keys
from service.store.evidence.rows import list_incidents, list_rows
from service.store.tables import IS_UNDECIDED, QUEUE_RANK, ApiKey, Decoder, Incident, IncidentEvent, Model
from service.store.tenants import scope
from service.store.write.concepts import NewConcept, register_concepts
from tests.integration.service import seed
from tests.support.people import ISSUER, sign_in

Headers = dict[str, str]
Sessions = sessionmaker[Session]
HOUR = dt.timedelta(hours=1)
CONFIRM = {"to": "confirmed", "reason_code": "seen_in_request"}
DISMISS = {"to": "dismissed", "reason_code": "not_in_request"}


class Reviewer:
    """Somebody who may triage, by key or in a browser."""

    def __init__(self, client: TestClient, headers: Headers) -> None:
        self._client = client
        self._headers = headers

    def send(self, incident: uuid.UUID, what: str, **body: Any) -> Response:
        return self._client.post(f"/v1/incidents/{incident}/{what}", headers=self._headers, json=body)

    def show(self, incident: uuid.UUID) -> dict[str, Any]:
        shown: dict[str, Any] = self._client.get(f"/v1/incidents/{incident}", headers=self._headers).json()
        return shown

    def list_assigned(self, assignee: str) -> list[str]:
        query = {"assignee": assignee}
        answer = self._client.get("/v1/incidents", params=query, headers=self._headers)
        return [item["id"] for item in answer.json()["items"]]


@pytest.fixture
def night(client: TestClient, headers_for: Callable[..., Headers]) -> Reviewer:
    """Who has the first key."""
    return Reviewer(client, headers_for("flags:read", "explanations:read", "incidents:triage"))


@pytest.fixture
def day(client: TestClient, headers_for: Callable[..., Headers], night: Reviewer) -> Reviewer:
    """Who has the second one."""
    assert night
    return Reviewer(client, headers_for("flags:read", "explanations:read", "incidents:triage"))


@pytest.fixture
def of_two(sessions: Sessions) -> uuid.UUID:
    """An incident of a concept that asks for two reviewers, and of one that does not."""
    with sessions.begin() as session:
        return plant(session, "chat-1")


def plant(session: Session, request_id: str, **definition: Any) -> uuid.UUID:
    audited = seed.add_model(session, f"model of {request_id}")
    definition = {"second_review": True} | definition
    asking = NewConcept(name="harm", version=1, digest="d" * 64, definition=definition)
    register_concepts(session, audited.model.id, [asking])
    flags = [
        seed.add_flag(session, audited, request_id=request_id, concept=one) for one in ("fraud", "harm")
    ]
    flags[1].concept_digest = asking.digest
    return seed.add_incident(session, *flags).id


def key_id_of(sessions: Sessions, number: int) -> uuid.UUID:
    with sessions() as session:
        return session.scalars(select(ApiKey.id).order_by(ApiKey.created_at)).all()[number]


def test_a_queue_goes_by_severity_and_then_by_age_and_meets_every_incident_once(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        for number, severity in enumerate(("info", "critical", "grave", "warning", "critical", "info")):
            flag = seed.add_flag(session, audited, request_id=f"r{number}", severity=severity)
            seed.add_incident(session, flag).opened_at = seed.START - number * HOUR
        flag = seed.add_flag(session, audited, request_id="closed", severity="critical")
        seed.add_incident(session, flag).state = "confirmed"
    seen, url = [], "/v1/incidents?order=queue&state=undecided&limit=2"
    while url:
        answer = client.get(url, headers=admin)
        seen += [item["request_id"] for item in answer.json()["items"]]
        url = answer.links.get("next", {}).get("url", "")

    assert seen == ["r4", "r1", "r3", "r5", "r0", "r2"]


def test_a_queue_is_read_from_its_index(sessions: Sessions) -> None:
    with sessions() as session:
        session.execute(text("SET LOCAL enable_seqscan = off"))
        query = (
            f"EXPLAIN SELECT id FROM incidents WHERE {IS_UNDECIDED} AND ({QUEUE_RANK}, opened_at, id) >"  # noqa: S608
            f" (1, now(), gen_random_uuid()) ORDER BY {QUEUE_RANK}, opened_at, id LIMIT 50"
        )
        plan = "\n".join(session.scalars(text(query)))

    assert "ix_incidents_queue" in plan
    assert "Sort" not in plan


def test_an_incident_is_taken_given_to_others_and_let_go_by_compare_and_set(
    sessions: Sessions, of_two: uuid.UUID, night: Reviewer, day: Reviewer
) -> None:
    assert night.list_assigned("none") == [str(of_two)]
    taken = night.send(of_two, "assignee", version=1, assignee="me").json()
    refused = day.send(of_two, "assignee", version=1, assignee="me")

    assert (taken["state"], taken["version"], taken["assignee"]["key_name"]) == ("open", 2, "test")
    assert (refused.status_code, refused.json()["code"], refused.json()["version"]) == (
        409,
        "incident_changed",
        2,
    )
    assert night.list_assigned("me") == [str(of_two)]
    assert day.list_assigned("me") == day.list_assigned("none") == []
    given = night.send(
        of_two, "assignee", version=2, assignee="key", key_id=str(key_id_of(sessions, 1))
    ).json()
    assert (given["version"], day.list_assigned("me"), night.list_assigned("me")) == (3, [str(of_two)], [])
    let_go = day.send(of_two, "assignee", version=3, assignee="none").json()
    assert (let_go["version"], let_go["assignee"]) == (4, None)
    events = night.show(of_two)["events"]
    assert [(event["kind"], event["to_state"]) for event in events[1:]] == [("assigned", "open")] * 3
    assert [event["assignee"] and event["assignee"]["key_id"] for event in events[1:]] == [
        taken["assignee"]["key_id"],
        given["assignee"]["key_id"],
        None,
    ]


def test_a_person_has_an_incident_in_each_of_his_sessions(
    client: TestClient, sessions: Sessions, of_two: uuid.UUID, night: Reviewer
) -> None:
    with sessions.begin() as session:
        scope.set_tenant(session, scope.DEFAULT_ID)
        first, second = (Reviewer(client, sign_in(session, "ann")) for _ in range(2))
        sign_in(session, "bob", scopes=["flags:read"])

    given = night.send(of_two, "assignee", version=1, assignee="person", issuer=ISSUER, person="ann")
    assert (given.json()["assignee"]["issuer"], given.json()["assignee"]["person"]) == (ISSUER, "ann")
    assert first.list_assigned("me") == second.list_assigned("me") == [str(of_two)]
    bob = night.send(of_two, "assignee", version=2, assignee="person", issuer=ISSUER, person="bob")
    assert (bob.status_code, bob.json()["errors"][0]["field"]) == (422, "person")


@pytest.mark.parametrize(
    ("body", "field", "code"),
    [
        ({"assignee": "key"}, "key_id", "missing"),
        ({"assignee": "person", "issuer": ISSUER}, "person", "missing"),
        ({"assignee": "me", "person": "ann"}, "person", "not_allowed"),
        ({"assignee": "key", "key_id": str(uuid.UUID(int=5))}, "key_id", "unknown_reviewer"),
        ({"assignee": "somebody"}, "assignee", "literal_error"),
    ],
    ids=["no key", "no person", "a person beside me", "an unknown key", "another word"],
)
def test_what_is_no_assignee_names_the_field(
    of_two: uuid.UUID, night: Reviewer, body: dict[str, str], field: str, code: str
) -> None:
    answer = night.send(of_two, "assignee", version=1, **body)

    assert answer.status_code == 422, answer.text
    [error] = answer.json()["errors"]
    assert error["field"] == field
    assert error["code"] == code or code == "literal_error"


def test_keys_that_may_not_triage_or_work_no_more_get_nothing_and_nobody_a_decided_incident(
    sessions: Sessions, night: Reviewer, headers_for: Callable[..., Headers]
) -> None:
    headers_for("flags:read")
    headers_for("incidents:triage")
    with sessions.begin() as session:
        keys.revoke_key(session, key_id_of(sessions, 2), seed.START)
        incident = seed.add_incident(session, seed.add_flag(session, seed.add_model(session))).id
    for number in (1, 2):
        body = {"assignee": "key", "key_id": str(key_id_of(sessions, number))}
        answer = night.send(incident, "assignee", version=1, **body)
        assert answer.json()["errors"][0]["code"] == "unknown_reviewer"

    assert night.send(incident, "transitions", version=1, **DISMISS).json()["state"] == "dismissed"
    answer = night.send(incident, "assignee", version=2, assignee="me")
    assert answer.json()["errors"][0]["code"] == "incident_decided"


def test_a_verdict_of_two_needs_the_second_to_say_the_same(
    of_two: uuid.UUID, night: Reviewer, day: Reviewer
) -> None:
    held = {"confirmed_concepts": ["harm"]}

    proposed = night.send(of_two, "transitions", version=1, **CONFIRM, **held, note="look").json()
    own = night.send(of_two, "transitions", version=2, **CONFIRM, **held)
    assert day.send(of_two, "assignee", version=2, assignee="me").status_code == 200

    assert (proposed["state"], proposed["second_review"], proposed["labels"]) == ("open", True, {})
    assert (proposed["proposal"]["to"], proposed["proposal"]["labels"]) == (
        "confirmed",
        {"fraud": False, "harm": True},
    )
    assert (own.status_code, own.json()["code"]) == (409, "second_reviewer_needed")
    agreed = day.send(
        of_two, "transitions", version=3, **CONFIRM | {"reason_code": "seen_elsewhere"}, **held
    ).json()
    assert (agreed["state"], agreed["proposal"], agreed["labels"]) == (
        "confirmed",
        None,
        {"fraud": False, "harm": True},
    )
    events = day.show(of_two)["events"]
    assert [(event["kind"], event["proposed_state"], event["proposal"]) for event in events] == [
        ("opened", None, None),
        ("proposed", "confirmed", 2),
        ("assigned", None, None),
        ("triaged", None, 2),
    ]


def test_who_disagrees_proposes_and_new_evidence_makes_a_proposal_void(
    sessions: Sessions, of_two: uuid.UUID, night: Reviewer, day: Reviewer
) -> None:
    night.send(of_two, "transitions", version=1, **DISMISS)
    other = day.send(of_two, "transitions", version=2, **CONFIRM, confirmed_concepts=["harm"]).json()
    assert (other["state"], other["proposal"]["to"], other["proposal"]["version"]) == (
        "open",
        "confirmed",
        3,
    )
    with sessions.begin() as session:
        incident = session.get_one(Incident, of_two)
        audited = seed.Audited(*of(session, incident))
        flag = seed.add_flag(session, audited, request_id=incident.request_id, concept="third")
        seed.add_incident(session, flag)

    shown = night.show(of_two)
    again = night.send(of_two, "transitions", version=4, **CONFIRM, confirmed_concepts=["harm"]).json()

    assert shown["proposal"] is None
    assert (again["state"], again["proposal"]["version"]) == ("open", 5)


def of(session: Session, incident: Incident) -> tuple[Any, Any]:
    return session.get_one(Model, incident.model_id), session.get_one(Decoder, incident.decoder_id)


def test_concepts_that_ask_for_nothing_are_decided_by_one(sessions: Sessions, night: Reviewer) -> None:
    with sessions.begin() as session:
        incident = plant(session, "chat-2", second_review=False)

    decided = night.send(incident, "transitions", version=1, **DISMISS).json()

    assert (decided["second_review"], decided["state"], decided["proposal"]) == (False, "dismissed", None)


def test_a_flag_that_asks_for_two_while_one_decides_sends_him_back_to_read(
    sessions: Sessions, night: Reviewer
) -> None:
    with sessions.begin() as session:
        incident = plant(session, "chat-2", second_review=False)
    waiting = "SELECT count(*) FROM pg_locks WHERE relation = 'incident_events'::regclass AND NOT granted"

    with ThreadPoolExecutor(1) as pool, sessions.begin() as arriving:
        # The verdict has asked how many it needs when it waits to write its event.
        arriving.execute(text("LOCK TABLE incident_events IN SHARE MODE"))
        deciding = pool.submit(night.send, incident, "transitions", version=1, **DISMISS)
        while not arriving.scalar(text(waiting)):
            assert not deciding.done()
        stored = arriving.get_one(Incident, incident)
        audited = seed.Audited(*of(arriving, stored))
        asking = NewConcept(name="third", version=1, digest="e" * 64, definition={"second_review": True})
        register_concepts(arriving, audited.model.id, [asking])
        flag = seed.add_flag(arriving, audited, request_id=stored.request_id, concept="third")
        flag.concept_digest = asking.digest
        arriving.commit()
        answer = deciding.result()

    refused = answer.json()
    assert (answer.status_code, refused["code"]) == (409, "incident_changed"), answer.text
    assert "two reviewers" in refused["detail"]
    assert (refused["state"], refused["version"]) == ("open", 1)
    again = night.send(incident, "transitions", version=1, **DISMISS).json()
    assert (again["state"], again["proposal"]["version"]) == ("open", 2)


def test_the_database_refuses_what_the_service_would(
    reader_url: str, of_two: uuid.UUID, night: Reviewer, sessions: Sessions
) -> None:
    night.send(of_two, "transitions", version=1, **DISMISS)
    labels = '{"fraud": false, "harm": false}'
    decide = f"UPDATE incidents SET state = 'dismissed', version = 3, labels = '{labels}'"  # noqa: S608

    def run(*statements: tuple[str, list[Any]]) -> None:
        with psycopg.connect(reader_url) as connection:
            connection.execute("SELECT set_config(%s, %s, true)", [scope.SETTING, str(scope.DEFAULT_ID)])
            for statement, values in statements:
                connection.execute(statement.encode(), values)

    def event(key: uuid.UUID, version: int, **more: Any) -> tuple[str, list[Any]]:
        row = {
            "id": uuid.uuid4(),
            "incident_id": of_two,
            "version": version,
            "kind": "triaged",
            "to_state": "dismissed",
            "severity": "high",
            "labels": labels,
            "key_id": key,
            "key_name": "k",
        } | more
        names = ", ".join(row)
        marks = ", ".join(["%s"] * len(row))
        return f"INSERT INTO incident_events ({names}) VALUES ({marks})", list(row.values())  # noqa: S608

    night_key = key_id_of(sessions, 0)
    another, own = uuid.uuid4(), uuid.uuid4()
    with sessions.begin() as session:
        for one, made_from in ((another, None), (own, night_key)):
            stored = ApiKey(id=one, name="k", secret_sha256=one.bytes, scopes=[], made_from=made_from)
            session.add(stored)
    with pytest.raises(CheckViolation, match="two reviewers"):
        run((decide, []))
    with pytest.raises(CheckViolation, match="two reviewers"):
        run(event(another, 3), (decide, []))
    with pytest.raises(UniqueViolation, match="uq_incident_events_proposal_key"):
        run(event(night_key, 3, proposal=2), (decide, []))
    with pytest.raises(CheckViolation, match="ck_incident_events_proposed"):
        run(event(another, 3, proposal=3))
    with pytest.raises(CheckViolation, match="two reviewers"):  # other labels than were proposed
        run(event(another, 3, proposal=2, labels='{"harm": true}'), (decide, []))
    with pytest.raises(CheckViolation, match="two reviewers"):  # of a key that the first one made
        run(event(own, 3, proposal=2), (decide, []))
    with pytest.raises(CheckViolation, match="two reviewers"):  # by a table that hides ours
        run(("CREATE TEMP TABLE flags (LIKE public.flags) ON COMMIT DROP", []), (decide, []))
    with pytest.raises(CheckViolation, match="two reviewers"):  # of nobody
        run(event(another, 3, proposal=2, key_id=None, key_name=None), (decide, []))
    run(event(another, 3, proposal=2), (decide, []))
    with sessions() as session:
        assert session.get_one(Incident, of_two).state == "dismissed"


def test_two_sessions_of_one_person_are_one_reviewer(
    client: TestClient, sessions: Sessions, of_two: uuid.UUID, reader_url: str
) -> None:
    with sessions.begin() as session:
        scope.set_tenant(session, scope.DEFAULT_ID)
        first, second = (Reviewer(client, sign_in(session, "ann")) for _ in range(2))
        other = Reviewer(client, sign_in(session, "bob"))

    assert first.send(of_two, "transitions", version=1, **DISMISS).json()["proposal"]["person"] == "ann"
    assert second.send(of_two, "transitions", version=2, **DISMISS).status_code == 409
    forged = (
        "INSERT INTO incident_events (id, incident_id, version, kind, to_state, severity, proposal,"
        " session_id, issuer, person) VALUES (gen_random_uuid(), %s, 3, 'triaged', 'dismissed', 'high', 2,"
        " gen_random_uuid(), %s, 'ann')"
    )
    with psycopg.connect(reader_url) as connection:
        connection.execute("SELECT set_config(%s, %s, true)", [scope.SETTING, str(scope.DEFAULT_ID)])
        with pytest.raises(UniqueViolation, match="proposal_person"):
            connection.execute(forged, [of_two, ISSUER])
    assert other.send(of_two, "transitions", version=2, **DISMISS).json()["state"] == "dismissed"


def test_the_log_commits_to_assignments_and_proposals(
    sessions: Sessions, of_two: uuid.UUID, night: Reviewer, day: Reviewer
) -> None:
    night.send(of_two, "assignee", version=1, assignee="me")
    night.send(of_two, "transitions", version=2, **DISMISS)
    day.send(of_two, "transitions", version=3, **DISMISS)

    with sessions() as session:
        scope.set_tenant(session, scope.DEFAULT_ID)
        rows = [
            row
            for part in list_rows(session, scope.DEFAULT_ID)
            for row in part
            if row.payload["table"] == IncidentEvent.__tablename__
        ]
        histories = Histories()
        histories.add([row.payload for row in rows])
        assert list(histories.compare(list_incidents(session, scope.DEFAULT_ID))) == []
    told = {row.payload["kind"]: row.payload for row in rows}
    assert told[EventKind.ASSIGNED]["assignee_key_name"] == "test"
    assert (told[EventKind.PROPOSED]["proposed_state"], told[EventKind.TRIAGED]["proposal"]) == (
        "dismissed",
        3,
    )
    assert "proposal" not in told[EventKind.OPENED]
    assert all(row.commitments for row in rows)
