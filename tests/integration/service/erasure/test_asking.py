"""Asking for an erasure tells what it is about once, to who asked, and afterwards nobody."""

import datetime as dt
import uuid
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session, sessionmaker

from service.evidence import entry
from service.incident_metrics import IncidentMetrics
from service.store.access.tables import AccessEntry, Action
from service.store.engine import session_factory
from service.store.erasure.tables import Erasure
from service.watch.incident_watch import IncidentWatch

Headers = dict[str, str]
PURPOSE = {"Subtext-Purpose": "subject_request; TICKET-7"}


def test_a_request_is_taken_with_a_certificate_and_told_in_counts(
    client: TestClient, sessions: sessionmaker[Session], headers_for: Callable[..., Headers]
) -> None:
    headers = headers_for("erasures:read", "erasures:write")
    body = {"scope": "request", "identifier": "the-request"}

    made = client.post("/v1/erasures", json=body, headers=headers | PURPOSE).json()
    told = client.get(f"/v1/erasures/{made['id']}", headers=headers)
    listed = client.get("/v1/erasures", headers=headers)
    statement = client.get(
        "/v1/coverage/statement?from=2026-11-23T00:00:00Z&to=2026-11-24T00:00:00Z",
        headers=headers_for("coverage:read"),
    ).json()

    salt = bytes.fromhex(made.pop("certificate")["salt"])
    shown = {"v": 1, "erasure": made["id"], "scope": "request", "identifier": "the-request"}
    assert entry.commit(salt, shown).hex() == made["commitment"]
    assert told.json() == made == listed.json()["items"][0]
    assert (made["state"], made["counts"], made["finished_at"]) == ("open", {}, None)
    assert "the-request" not in told.text + listed.text
    assert (statement["erasures"]["open"], statement["erasures"]["overdue"]) == (1, 0)
    with sessions() as session:
        stored = session.get_one(Erasure, uuid.UUID(made["id"]))
        assert (stored.identifier, (stored.due_at - stored.asked_at).days) == ("the-request", 30)
        [entered] = session.scalars(select(AccessEntry).where(AccessEntry.action == Action.WRITE))
    assert (entered.purpose, entered.purpose_note) == ("subject_request", "TICKET-7")
    assert entered.details == {"scope": "request", "commitment": made["commitment"]}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"scope": "tenant", "identifier": "x"}, "not_expected"),
        ({"scope": "request"}, "missing"),
        ({"scope": "capture", "identifier": "x"}, "not_a_capture"),
        ({"scope": "trace", "identifier": "X" * 32}, "not_a_trace"),
        ({"scope": "subject", "identifier": "a-persons-id"}, "not_a_subject"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(
    client: TestClient, admin: Headers, body: dict[str, str], code: str
) -> None:
    answer = client.post("/v1/erasures", json=body, headers=admin)

    assert answer.status_code == 422
    assert [error["code"] for error in answer.json()["errors"]] == [code]


def test_how_many_are_open_and_for_how_long_is_measured(
    client: TestClient, admin: Headers, reader: Engine
) -> None:
    registry = CollectorRegistry()
    watch = IncidentWatch(session_factory(reader), IncidentMetrics(registry), {})
    now = dt.datetime.now(dt.UTC)
    watch.look(now)
    before = registry.get_sample_value("subtext_erasure_oldest_open_age_seconds")

    for _ in range(2):
        client.post("/v1/erasures", json={"scope": "tenant"}, headers=admin)
    watch.look(now + dt.timedelta(days=9))

    assert before == 0
    assert registry.get_sample_value("subtext_erasures_open") == 2
    of_erasures = {"kind": "erasure"}
    asked = registry.get_sample_value("subtext_removals_asked", of_erasures)
    waiting = registry.get_sample_value("subtext_removals_waiting", of_erasures)
    assert (asked, waiting) == (2, 0)  # nine days later
    watch.look(now + dt.timedelta(hours=1))
    assert registry.get_sample_value("subtext_removals_waiting", of_erasures) == 2
    assert registry.get_sample_value("subtext_removals_asked", {"kind": "retention"}) == 0
    watch.look(now + dt.timedelta(days=9))
    age = registry.get_sample_value("subtext_erasure_oldest_open_age_seconds")
    assert age == pytest.approx(9 * 86_400, abs=3600)
