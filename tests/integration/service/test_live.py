"""What happens now, by a real service: as one answer, and as events to real listeners."""

import datetime as dt
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import httpx
import psycopg
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import update
from sqlalchemy.orm import Session, sessionmaker

from service import auth
from service.serving import Server
from service.store import identity, keys
from service.store.people.tables import LoginSession
from service.store.tables import ApiKey, Incident
from service.store.tenants import scope
from service.store.tenants.tables import Tenant
from tests.integration.service import seed
from tests.support.people import sign_in
from tests.support.service import running_service
from tests.support.services import free_port
from tests.support.waiting import wait_until

Headers = dict[str, str]
Sessions = sessionmaker[Session]
EVENTS = {"Accept": "text/event-stream"}
ACME = identity.tenant_id("acme")


@pytest.fixture
def service(app: FastAPI) -> Iterator[str]:
    """Return the address of a server of our own kind, in a thread."""
    port = free_port()
    config = uvicorn.Config(app, port=port, log_config=None, timeout_graceful_shutdown=10)
    server = Server(config, app.state.resources.live)
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until("the server listens", lambda: server.started)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive()


def answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False


class Event(NamedTuple):
    name: str
    data: Any
    id: str | None


@contextmanager
def listening(service: str, headers: Headers) -> Iterator[Iterator[Event]]:
    """Listen; the events end when the stream does."""
    with httpx.stream("GET", f"{service}/v1/live", headers=headers | EVENTS, timeout=30) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert (answer.headers["cache-control"], answer.headers["x-accel-buffering"]) == ("no-store", "no")
        yield events(answer.iter_lines())


def events(lines: Iterator[str]) -> Iterator[Event]:
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "event" in fields:
            yield Event(fields["event"], json.loads(fields["data"]), fields.get("id"))
            fields = {}


def until(found: Iterator[Event], name: str, is_so: Callable[[Any], bool] = lambda _: True) -> Event:
    return next(event for event in found if event.name == name and is_so(event.data))


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@pytest.fixture
def audited(sessions: Sessions) -> seed.Audited:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        seed.add_explanation(session, audited, captured_at=now(), verified=False)
        seed.add_explanation(session, audited, request_id="old", captured_at=now() - dt.timedelta(days=2))
        seed.add_incident(session, seed.add_flag(session, audited, captured_at=now()))
        seed.add_window(session, audited, ["chat-1"], ["chat-4", "chat-5"], captured_at=now())
        minute = now().replace(second=0, microsecond=0)
        seed.add_coverage(
            session, hop="plugin", minute=minute, requests_seen=9, requests_sampled=3, rows_sampled=40
        )
        seed.add_coverage(session, hop="worker", minute=minute, rows_decoded=30)
        seed.add_coverage(
            session, hop="plugin", minute=minute, stratum="canary", requests_seen=5, rows_sampled=5
        )
        return audited


@pytest.mark.usefixtures("audited")
def test_one_answer_tells_places_and_counts_and_no_text(client: TestClient, admin: Headers) -> None:
    answer = client.get("/v1/live", headers=admin)

    told = answer.json()
    [reading] = told["readings"]["newest"]
    assert (reading["request_id"], reading["position"], reading["hypothesis"]) == ("chat-1", 0, True)
    assert (reading["fidelity"]["verified"], reading["fidelity"]["fve"]) == (False, -0.1)
    [model] = told["coverage"]["models"]
    assert model["totals"]["requests_sampled"] == {"numerator": 3, "denominator": 9, "value": 3 / 9}
    assert model["minutes"][0]["sums"]["rows_decoded"]["denominator"] == 40
    assert model["settled_before"] is None
    [incident] = told["incidents"]["changed"]
    assert (incident["state"], incident["version"]) == ("open", 2)
    assert told["incidents"]["tested"] == [
        {"model": "tiny", "windows": 1, "discovered": {"numerator": 1, "denominator": 3, "value": 1 / 3}}
    ]
    assert told["incidents"]["undecided"] == [
        {"model": "tiny", "state": "open", "incidents": 1, "versions": 2}
    ]
    assert not [word for word in (seed.SECRET_TEXT, seed.SECRET_TOKEN) if word in answer.text]


@pytest.mark.usefixtures("audited")
def test_a_part_without_its_scope_is_null(client: TestClient, headers_for: Callable[..., Headers]) -> None:
    told = client.get("/v1/live", headers=headers_for("coverage:read", "flags:read")).json()

    assert [told[part] is None for part in ("coverage", "readings", "incidents")] == [False, True, False]


def test_without_coverage_there_is_none(client: TestClient, headers_for: Callable[..., Headers]) -> None:
    assert client.get("/v1/live", headers=headers_for("flags:read")).status_code == 403
    assert client.get("/v1/live", headers=EVENTS).status_code == 401
    assert client.get("/v1/live?all=1", headers=headers_for("coverage:read")).status_code == 422


def test_what_happens_is_told_and_what_was_told_is_not_told_again(
    service: str, sessions: Sessions, audited: seed.Audited, admin: Headers
) -> None:
    with listening(service, admin) as found:
        first = [next(found) for _ in range(3)]
        assert [event.name for event in first] == ["coverage", "readings", "incidents"]
        with sessions.begin() as session:
            new = seed.add_explanation(session, audited, request_id="chat-2", captured_at=now())
        told = until(found, "readings")
        assert told.data["newest"][0]["id"] == str(new.id)
        assert len(told.data["newest"]) == 2
        with sessions.begin() as session:
            session.execute(update(Incident).values(state="acknowledged", version=3))
        assert until(found, "incidents").data["undecided"][0]["state"] == "acknowledged"

    known = {"Last-Event-ID": told.id or ""}
    with listening(service, admin | known) as again:
        first = [next(again)]
        while first[-1].name != "incidents":
            first.append(next(again))
        assert "readings" not in {event.name for event in first}
        assert first[-1].data["undecided"][0]["versions"] == 3


def test_nobody_is_told_of_another_tenant_or_model(
    service: str, sessions: Sessions, audited: seed.Audited
) -> None:
    secret, narrow = auth.new_secret(), auth.new_secret()
    with sessions.begin() as session:
        session.add(Tenant(id=ACME, name="acme"))
        session.flush()
        other = seed.add_model(session, "other")
        seed.add_explanation(session, other, request_id="chat-3", captured_at=now())
        for made, tenant, models in ((secret, ACME, None), (narrow, scope.DEFAULT_ID, ["other"])):
            keys.add_key(
                session,
                name="test",
                secret_sha256=auth.digest(made),
                scopes=["admin"],
                tenant_id=tenant,
                models=models,
            )
    assert audited
    with ExitStack() as stack:
        stranger, own = (
            [next(found) for _ in range(3)]
            for found in (
                stack.enter_context(listening(service, {"X-API-Key": one})) for one in (secret, narrow)
            )
        )

    assert stranger[0].data["models"] == []
    assert [event.data["newest"] for event in stranger if event.name == "readings"] == [[]]
    [reading] = next(event.data["newest"] for event in own if event.name == "readings")
    assert (reading["model"], reading["request_id"]) == ("other", "chat-3")
    assert own[0].data["models"] == []
    assert own[2].data == {"undecided": [], "changed": [], "tested": []}


def test_a_stream_ends_with_its_key_and_with_its_session(
    service: str, sessions: Sessions, headers_for: Callable[..., Headers]
) -> None:
    key = headers_for("coverage:read")
    with sessions.begin() as session:
        browser = sign_in(session, "somebody")
        other = sign_in(session, "somebody else")
    with ExitStack() as stack:
        of_key, of_session, living = (
            stack.enter_context(listening(service, one)) for one in (key, browser, other)
        )
        for found in (of_key, of_session, living):
            until(found, "coverage")
        with sessions.begin() as session:
            session.execute(update(ApiKey).values(revoked_at=now()))
            session.execute(
                update(LoginSession).where(LoginSession.person == "somebody").values(idle_expires_at=now())
            )
        for found in (of_key, of_session):
            assert [event.data for event in found if event.name == "end"] == [{"reason": "access_ended"}]
        with sessions.begin() as session:
            session.execute(update(LoginSession).values(scopes=["flags:read"]))
        assert [event.data for event in living if event.name == "end"] == [{"reason": "access_changed"}]


@pytest.mark.usefixtures("audited")
def test_a_store_that_is_away_is_told_and_the_stream_lives_on(
    service: str, database_url: str, admin: Headers
) -> None:
    with listening(service, admin) as found:
        until(found, "incidents")
        with psycopg.connect(database_url) as connection:
            connection.execute("LOCK TABLE incidents IN ACCESS EXCLUSIVE MODE")
            # One may tell just before that nothing was new for a while.
            told = until(found, "looked", lambda data: data["away"]).data
            assert dt.datetime.fromisoformat(told["as_of"]) < now()
        until(found, "looked", lambda data: not data["away"])


def test_one_key_has_so_many_streams_and_gets_a_place_again_when_one_ends(
    service: str, admin: Headers
) -> None:
    with ExitStack() as stack:
        for _ in range(12):
            stack.enter_context(listening(service, admin))
        refused = httpx.get(f"{service}/v1/live", headers=admin | EVENTS)
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_streams")
        assert refused.headers["retry-after"] == "30"
        assert refused.headers["content-type"] == "application/problem+json"

    def has_place() -> bool:
        with httpx.stream("GET", f"{service}/v1/live", headers=admin | EVENTS) as answer:
            return answer.status_code == 200

    wait_until("a place is free", has_place)


def test_open_streams_keep_nobody_waiting_and_the_process_ends_at_once(
    reader_url: str, admin: Headers
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with running_service(database_url=reader_url, http_port=str(port)) as process, ExitStack() as stack:
        wait_until("the service listens", lambda: answers(f"{url}/healthz"), 180)
        found = [stack.enter_context(listening(url, admin)) for _ in range(10)]
        for one in found:
            until(one, "coverage")
        assert httpx.get(f"{url}/v1/models", headers=admin, timeout=20).is_success
        process.send_signal(signal.SIGTERM)
        for one in found:
            assert [event.data for event in one if event.name == "end"] == [{"reason": "shutting_down"}]
        assert process.wait(9) == 0


@pytest.mark.usefixtures("audited")
def test_listening_for_long_is_no_slow_answer(service: str, admin: Headers) -> None:
    began = time.monotonic()
    with listening(service, admin) as found:
        answered_seconds = time.monotonic() - began
        until(found, "coverage")
        wait_until("it listened for longer", lambda: time.monotonic() > began + answered_seconds + 1)

    def measured() -> list[str]:
        shown = httpx.get(f"{service}/metrics").text.splitlines()
        whole = "subtext_api_request_duration_seconds_sum"
        return [line for line in shown if line.startswith(whole) and 'route="/v1/live"' in line]

    [counted] = wait_until("the stream is counted", measured)
    assert 0 < float(counted.rsplit(" ", 1)[1]) <= answered_seconds
