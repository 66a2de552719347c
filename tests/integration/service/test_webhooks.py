import base64
import contextlib
import datetime as dt
import json
import os
import secrets
import signal
import ssl
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from cloudevents.core.formats.json import JSONFormat
from prometheus_client import CollectorRegistry
from sqlalchemy import Engine, func, select, update
from sqlalchemy.orm import Session, sessionmaker
from standardwebhooks import WebhookVerificationError

from service.incident_metrics import IncidentMetrics
from service.store import outbox
from service.store.engine import session_factory
from service.store.identity import tenant_id
from service.store.tables import Incident, WebhookDelivery
from service.store.tenants.scope import DEFAULT_ID, set_tenant
from service.watch.incident_watch import IncidentWatch
from service.webhooks import transport
from service.webhooks.courier import Courier, Limits
from service.webhooks.destinations import Destination
from tests.integration.service import seed
from tests.support.receiver import Receiver, receiving
from tests.support.service import running_service
from tests.support.services import free_port, write_certificate
from tests.support.waiting import wait_until

Sessions = sessionmaker[Session]
IMPATIENT = Limits(
    max_attempts=3,
    first_pause=dt.timedelta(milliseconds=1),
    longest_pause=dt.timedelta(milliseconds=2),
    idle_seconds=0.05,
)


def new_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


SECRET = new_secret()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "webhook_secret"
    path.write_text(SECRET + "\n")
    return path


@pytest.fixture
def destination(receiver: Receiver, secret_file: Path) -> Destination:
    return Destination(
        name="on-call", url=f"http://127.0.0.1:{receiver.port}/hook?a=b", secret_file=secret_file
    )


@pytest.fixture
def incident(sessions: Sessions) -> Incident:
    with sessions.begin() as session:
        audited = seed.add_model(session, "org/tiny")
        seed.add_explanation(session, audited, concept="deception", claims=seed.CLAIMS)
        return seed.add_incident(session, seed.add_flag(session, audited))


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def make_courier(reader: Engine, registry: CollectorRegistry) -> Callable[..., Courier]:
    """Couriers with the rights that a deployment gives the service."""
    metrics = IncidentMetrics(registry)

    def make(*destinations: Destination, limits: Limits = IMPATIENT) -> Courier:
        return Courier(
            session_factory(reader),
            destinations,
            metrics,
            public_url="https://audit.example",
            limits=limits,
        )

    return make


def deliveries(sessions: Sessions) -> list[tuple[str, int, str | None]]:
    with sessions() as session:
        rows = session.scalars(select(WebhookDelivery).order_by(WebhookDelivery.created_at))
        return [(row.state, row.attempts, row.last_error) for row in rows]


def until_settled(courier: Courier, destination: Destination, sessions: Sessions) -> None:
    wait_until(
        "the delivery is settled",
        lambda: {state for state, _, _ in deliveries(sessions)} in ({"delivered"}, {"failed"}),
        30,
        meanwhile=lambda: courier.deliver_next(destination),
    )


@pytest.mark.usefixtures("incident")
def test_a_message_is_a_signed_cloud_event_without_text(
    receiver: Receiver, destination: Destination, make_courier: Callable[..., Courier], incident: Incident
) -> None:
    courier = make_courier(destination)

    assert courier.deliver_next(destination)
    assert not courier.deliver_next(destination)

    [received] = receiver.received
    document = received.verified(SECRET)
    event = from_http_event(HTTPMessage(headers=received.headers, body=received.body), JSONFormat())
    assert event.get_id() == received.headers["webhook-id"]
    assert (event.get_type(), event.get_subject()) == ("io.subtext.incident.opened.v1", str(incident.id))
    assert event.get_source() == "/models/org%2Ftiny/layers/20"
    data: Any = document["data"]
    assert (data["state"], data["severity"], data["status"], data["version"]) == ("open", "high", "lead", 1)
    assert data["findings"][0]["concept"] == "deception"
    assert data["link"] == f"https://audit.example/console/review/{incident.id}"
    assert data["api_link"] == f"https://audit.example/v1/incidents/{incident.id}"
    assert data["request_link"] == (
        "https://audit.example/console/requests/chat-1"
        f"?capture={incident.capture_id}&model=org%2Ftiny&layer=20"
    )
    told = received.body.decode()
    assert not [text for text in (seed.SECRET_TEXT, seed.SECRET_TOKEN, seed.SECRET_AREA) if text in told]


@pytest.mark.usefixtures("incident")
def test_two_secrets_sign_so_that_a_receiver_with_either_accepts(
    receiver: Receiver, destination: Destination, make_courier: Callable[..., Courier], secret_file: Path
) -> None:
    courier = make_courier(destination)
    newer = new_secret()
    secret_file.write_text(f"{newer}\n{SECRET}\n")  # while it runs

    courier.deliver_next(destination)

    [received] = receiver.received
    assert received.verified(newer) == received.verified(SECRET)
    with pytest.raises(WebhookVerificationError):
        received.verified(new_secret())


@pytest.mark.usefixtures("incident")
def test_a_receiver_that_fails_gets_the_same_message_again(
    receiver: Receiver, destination: Destination, make_courier: Callable[..., Courier], sessions: Sessions
) -> None:
    receiver.statuses += [500, 307]
    courier = make_courier(destination)

    until_settled(courier, destination, sessions)

    assert len({(one.headers["webhook-id"], one.body) for one in receiver.received}) == 1
    assert len(receiver.received) == 3  # the redirect was not followed
    assert deliveries(sessions) == [("delivered", 3, None)]


@pytest.mark.usefixtures("incident")
def test_a_receiver_that_never_takes_it_ends_as_failed_where_everybody_sees_it(
    receiver: Receiver,
    destination: Destination,
    make_courier: Callable[..., Courier],
    sessions: Sessions,
    registry: CollectorRegistry,
) -> None:
    receiver.statuses += [503] * 9
    courier = make_courier(destination)

    until_settled(courier, destination, sessions)

    assert deliveries(sessions) == [("failed", 3, "HTTP 503")]
    counted = {
        outcome: registry.get_sample_value(
            "subtext_webhook_deliveries_total", {"destination": "on-call", "outcome": outcome}
        )
        for outcome in ("delivered", "retried", "failed", "expired")
    }
    assert counted == {"delivered": 0, "retried": 2, "failed": 1, "expired": 0}


@pytest.mark.usefixtures("incident")
def test_gone_is_final(
    receiver: Receiver, destination: Destination, make_courier: Callable[..., Courier], sessions: Sessions
) -> None:
    receiver.statuses += [410]

    make_courier(destination).deliver_next(destination)

    [(state, attempts, _)] = deliveries(sessions)
    assert (state, attempts) == ("failed", 1)


@pytest.mark.usefixtures("incident")
@pytest.mark.parametrize("fault", ["delay_seconds", "drip_seconds"])
def test_a_slow_receiver_costs_a_bounded_time(
    *,
    receiver: Receiver,
    destination: Destination,
    make_courier: Callable[..., Courier],
    sessions: Sessions,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
) -> None:
    monkeypatch.setattr(transport, "STEP_SECONDS", 0.5)
    monkeypatch.setattr(transport, "WHOLE_SECONDS", 1.0)
    setattr(receiver, fault, 3.0 if fault == "delay_seconds" else 0.1)

    make_courier(destination).deliver_next(destination)

    assert deliveries(sessions) == [("pending", 1, "timeout")]
    receiver.drip_seconds = 0.0


@pytest.mark.usefixtures("incident")
def test_an_absent_receiver_is_tried_later(
    make_courier: Callable[..., Courier], sessions: Sessions, secret_file: Path
) -> None:
    absent = Destination(name="away", url=f"http://127.0.0.1:{free_port()}/", secret_file=secret_file)

    make_courier(absent).deliver_next(absent)

    assert deliveries(sessions) == [("pending", 1, "ConnectionRefusedError")]


def run_and_die(url: str, file: Path, checkpoint: str) -> None:
    environment = {"SUBTEXT_DATABASE_URL": url, "SUBTEXT_WEBHOOKS_FILE": str(file)}
    ended = subprocess.run(
        [sys.executable, "-m", "tests.integration.service.webhook_runner", checkpoint, "0.2"],
        env=os.environ | environment,
        check=False,
        timeout=120,
    )
    assert ended.returncode == -signal.SIGKILL


@pytest.mark.usefixtures("incident")
@pytest.mark.parametrize(("checkpoint", "sent"), [("claimed", 1), ("sent", 2)])
def test_a_service_that_is_killed_leaves_the_message_to_the_next(
    *,
    receiver: Receiver,
    destination: Destination,
    make_courier: Callable[..., Courier],
    sessions: Sessions,
    reader_url: str,
    tmp_path: Path,
    checkpoint: str,
    sent: int,
) -> None:
    file = tmp_path / "webhooks.json"
    file.write_text(f"[{destination.model_dump_json()}]")
    run_and_die(reader_url, file, checkpoint)
    assert deliveries(sessions) == [("pending", 1, None)]

    until_settled(make_courier(destination), destination, sessions)

    assert deliveries(sessions) == [("delivered", 2, None)]
    assert len(receiver.received) == sent
    assert len({one.headers["webhook-id"] for one in receiver.received}) == 1
    assert all(one.verified(SECRET) for one in receiver.received)


def test_several_services_send_each_message_once(
    receiver: Receiver, destination: Destination, make_courier: Callable[..., Courier], sessions: Sessions
) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        for number in range(30):
            seed.add_incident(session, seed.add_flag(session, audited, request_id=f"r{number}"))
    couriers = [make_courier(destination) for _ in range(3)]

    for courier in couriers:
        courier.start()
    wait_until("all are sent", lambda: len(receiver.received) >= 30, 60)
    for courier in couriers:
        courier.close()

    assert len(receiver.received) == len({one.headers["webhook-id"] for one in receiver.received}) == 30
    assert set(deliveries(sessions)) == {("delivered", 1, None)}


@pytest.mark.usefixtures("incident")
def test_each_destination_gets_each_message_and_one_that_is_away_delays_no_other(
    *,
    receiver: Receiver,
    destination: Destination,
    make_courier: Callable[..., Courier],
    sessions: Sessions,
    secret_file: Path,
) -> None:
    away = Destination(name="away", url=f"http://127.0.0.1:{free_port()}/", secret_file=secret_file)
    courier = make_courier(away, destination, limits=Limits())

    assert courier.deliver_next(away)
    assert courier.deliver_next(destination)

    assert sorted(deliveries(sessions)) == [
        ("delivered", 1, None),
        ("pending", 1, "ConnectionRefusedError"),
    ]
    assert len(receiver.received) == 1
    shown = CollectorRegistry()
    tenants = dict.fromkeys(["away", "on-call"], DEFAULT_ID)
    IncidentWatch(sessions, IncidentMetrics(shown), tenants).look(dt.datetime.now(dt.UTC))
    waiting = {
        name: shown.get_sample_value("subtext_webhook_pending_messages", {"destination": name})
        for name in ("away", "on-call")
    }
    assert waiting == {"away": 1, "on-call": 0}
    ages = {"model": "org/tiny", "severity": "high"}
    assert (shown.get_sample_value("subtext_incident_oldest_open_age_seconds", ages) or 0) > 0


LATER = Limits(first_pause=dt.timedelta(hours=1))
"""Whose pauses no test outlasts."""
ALL = Limits(whole_look_seconds=0.0)
"""Every look but the first one is at everything."""


def add_incidents(sessions: Sessions, *kinds: tuple[str, float | None]) -> list[str]:
    """Add an incident of each severity and false-positive rate, one after the other; return their ids."""
    found = []
    with sessions.begin() as session:
        audited = seed.add_model(session, f"m{uuid.uuid4()}")
    for number, (severity, rate) in enumerate(kinds):
        with sessions.begin() as session:
            flag = seed.add_flag(
                session, audited, request_id=f"r{number}", severity=severity, false_positive_rate=rate
            )
            found.append(str(seed.add_incident(session, flag).id))
    return found


def told(receiver: Receiver) -> list[str]:
    return [one.verified(SECRET)["subject"] for one in receiver.received]


def age(database_url: str, hours: float, event: str = "true") -> None:
    """Let the messages of these events be so many hours old."""
    with psycopg.connect(database_url) as owner:
        owner.execute(
            f"UPDATE webhook_messages SET created_at = now() - {hours} * interval '1 hour'"  # noqa: S608
            f" FROM incident_events WHERE id = event_id AND {event}".encode()
        )


def test_what_is_most_urgent_is_told_first_and_of_equals_the_oldest(
    receiver: Receiver, destination: Destination, make_courier: Callable[..., Courier], sessions: Sessions
) -> None:
    ids = add_incidents(
        sessions,
        *[("warning", None)] * 2,
        ("critical", None),
        ("info", 0.01),
        ("warning", 0.01),
        ("critical", 0.01),
        ("odd", 0.01),
    )
    courier = make_courier(destination)

    for _ in ids:
        assert courier.deliver_next(destination)

    assert told(receiver) == [ids[number] for number in (5, 2, 4, 0, 1, 3, 6)]


def test_a_message_that_is_tried_again_holds_up_no_other_and_yields_to_what_is_more_urgent(
    receiver: Receiver, destination: Destination, make_courier: Callable[..., Courier], sessions: Sessions
) -> None:
    critical, lead = add_incidents(sessions, ("critical", 0.01), ("info", None))
    receiver.statuses += [500, 200, 500]
    courier = make_courier(destination, limits=LATER)
    for _ in range(2):
        assert courier.deliver_next(destination)
    assert not courier.deliver_next(destination)
    assert told(receiver) == [critical, lead]

    [failing] = add_incidents(sessions, ("info", None))
    courier.deliver_next(destination)
    [urgent] = add_incidents(sessions, ("critical", None))
    with sessions.begin() as session:  # both failed ones are due again
        session.execute(
            update(WebhookDelivery).where(WebhookDelivery.attempts == 1).values(next_attempt_at=func.now())
        )
    for _ in range(3):
        assert courier.deliver_next(destination)

    assert told(receiver)[2:] == [failing, critical, urgent, failing]


def test_a_destination_that_another_service_has_or_that_comes_later_loses_nothing(
    *,
    receiver: Receiver,
    destination: Destination,
    make_courier: Callable[..., Courier],
    sessions: Sessions,
    secret_file: Path,
    database_url: str,
) -> None:
    old, young = add_incidents(sessions, ("info", None), ("info", None))
    age(database_url, 25, f"incident_id = '{old}'")
    age(database_url, 23, f"incident_id = '{young}'")
    first = make_courier(destination)
    assert first.deliver_next(destination)
    assert not first.deliver_next(destination)

    with receiving() as second:
        later = Destination(name="later", url=f"http://127.0.0.1:{second.port}/", secret_file=secret_file)
        courier = make_courier(later)
        assert courier.deliver_next(later)
        assert not courier.deliver_next(later)
        assert told(receiver) == told(second) == [young]


def test_a_message_that_no_service_of_a_known_destination_saw_for_a_day_is_noted_as_not_sent(
    *,
    receiver: Receiver,
    destination: Destination,
    make_courier: Callable[..., Courier],
    sessions: Sessions,
    database_url: str,
    registry: CollectorRegistry,
) -> None:
    [known] = add_incidents(sessions, ("info", None))
    courier = make_courier(destination, limits=ALL)
    assert courier.deliver_next(destination)
    age(database_url, 50)
    [unseen] = add_incidents(sessions, ("critical", None))
    age(database_url, 25, f"incident_id = '{unseen}'")

    for _ in range(2):
        assert not courier.deliver_next(destination)

    assert told(receiver) == [known]
    expired = ("failed", 0, "expired: no service with this destination ran in time")
    assert sorted(deliveries(sessions)) == [("delivered", 1, None), expired]
    labels = {"destination": "on-call", "outcome": "expired"}
    assert registry.get_sample_value("subtext_webhook_deliveries_total", labels) == 1


def test_a_message_that_was_long_under_way_to_the_store_is_sent(
    *,
    receiver: Receiver,
    destination: Destination,
    make_courier: Callable[..., Courier],
    sessions: Sessions,
    database_url: str,
) -> None:
    courier = make_courier(destination, limits=ALL)
    assert not courier.deliver_next(destination)
    [late] = add_incidents(sessions, ("info", None))
    age(database_url, 1)

    assert courier.deliver_next(destination)

    assert told(receiver) == [late]


def test_more_than_one_look_takes_is_routed_before_anything_is_sent(
    *,
    receiver: Receiver,
    destination: Destination,
    make_courier: Callable[..., Courier],
    sessions: Sessions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outbox, "ROUTED_AT_ONCE", 2)
    critical, *_ = add_incidents(sessions, ("critical", 0.01), *[("info", None)] * 6)

    make_courier(destination).deliver_next(destination)

    assert told(receiver) == [critical]
    assert len(deliveries(sessions)) == 7


@pytest.mark.usefixtures("incident")
def test_what_is_left_of_a_destination_that_was_taken_out_is_given_up(
    *,
    destination: Destination,
    make_courier: Callable[..., Courier],
    sessions: Sessions,
    secret_file: Path,
    registry: CollectorRegistry,
) -> None:
    away = Destination(name="away", url=f"http://127.0.0.1:{free_port()}/", secret_file=secret_file)
    make_courier(away).deliver_next(away)
    with sessions.begin() as session:
        session.execute(
            update(WebhookDelivery).values(next_attempt_at=func.now() - dt.timedelta(days=3, minutes=1))
        )
    courier = make_courier(destination, limits=ALL)

    for _ in range(2):
        courier.deliver_next(destination)

    assert [state for state, *_ in sorted(deliveries(sessions))] == ["delivered", "failed"]
    labels = {"destination": "away", "outcome": "expired"}
    assert registry.get_sample_value("subtext_webhook_deliveries_total", labels) == 1


def test_an_event_that_no_worker_wrote_is_given_up_and_holds_up_no_other(
    *,
    receiver: Receiver,
    destination: Destination,
    make_courier: Callable[..., Courier],
    sessions: Sessions,
    database_url: str,
) -> None:
    broken, whole = add_incidents(sessions, ("critical", None), ("info", None))
    with psycopg.connect(database_url) as owner:
        owner.execute("UPDATE incident_events SET findings = '[1]' WHERE incident_id = %s", [broken])
    courier = make_courier(destination)

    for _ in range(2):
        assert courier.deliver_next(destination)

    assert told(receiver) == [whole]
    assert sorted(deliveries(sessions)) == [
        ("delivered", 1, None),
        ("failed", 1, "its event cannot be told"),
    ]


@pytest.mark.usefixtures("incident")
def test_where_nothing_keeps_rows_apart_a_destination_of_nobodys_tenant_is_told_nothing(
    sessions: Sessions,
) -> None:
    with sessions.begin() as session:  # a superuser's, for whom there is no row-level security
        set_tenant(session, tenant_id("nobody"))

        assert outbox.route(session, "on-call", outbox.ROUTED_WITHIN) == outbox.Routed(0, 0, None)
        assert outbox.list_waiting(session, ["on-call"]) == {"on-call": outbox.Waiting(0, None)}


@pytest.mark.usefixtures("incident")
def test_a_message_that_was_taken_counts_as_delivered_although_another_service_gave_it_up(
    sessions: Sessions,
) -> None:
    lease = dt.timedelta(0)
    with sessions.begin() as session:
        outbox.route(session, "on-call", outbox.ROUTED_WITHIN)
    claims = []
    for _ in range(2):
        with sessions.begin() as session:
            claims.append(outbox.claim(session, "on-call", lease))
    first, second = claims
    assert first is not None
    assert second is not None
    with sessions.begin() as session:
        outbox.mark_failed(session, second, "no attempt came to its end")
    with sessions.begin() as session:
        outbox.mark_delivered(session, first)

    assert deliveries(sessions) == [("delivered", 2, None)]


def test_a_host_whose_first_address_does_not_answer_is_reached_at_another(receiver: Receiver) -> None:
    with transport.reach(["127.0.0.2", "127.0.0.1"], receiver.port) as reached:
        assert reached.getpeername() == ("127.0.0.1", receiver.port)
    with pytest.raises(transport.DeliveryError, match="ConnectionRefusedError"):
        transport.reach(["127.0.0.2", "127.0.0.3"], receiver.port)


@pytest.mark.usefixtures("incident")
def test_over_https_only_a_trusted_certificate_is_sent_anything(
    make_courier: Callable[..., Courier], sessions: Sessions, secret_file: Path, tmp_path: Path
) -> None:
    certificate, key = write_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with receiving(context) as receiver:
        url = f"https://127.0.0.1:{receiver.port}/"
        stranger = Destination(name="stranger", url=url, secret_file=secret_file)
        trusted = Destination(name="trusted", url=url, secret_file=secret_file, ca_file=certificate)
        courier = make_courier(stranger, trusted, limits=Limits())
        courier.deliver_next(stranger)
        assert receiver.received == []
        courier.deliver_next(trusted)

        assert len(receiver.received) == 1
    assert sorted(deliveries(sessions)) == [
        ("delivered", 1, None),
        ("pending", 1, "TLS: SSLCertVerificationError"),
    ]


def test_a_service_process_tells_what_its_own_triage_did(
    *,
    receiver: Receiver,
    destination: Destination,
    incident: Incident,
    headers_for: Callable[..., dict[str, str]],
    reader_url: str,
    tmp_path: Path,
) -> None:
    import httpx

    port, file = free_port(), tmp_path / "webhooks.json"
    file.write_text(f"[{destination.model_dump_json()}]")
    settings = {"database_url": reader_url, "http_port": str(port), "webhooks_file": str(file)}
    body = {"version": 1, "to": "acknowledged", "reason_code": "under_review", "note": "do not tell"}

    def listens() -> bool:
        with contextlib.suppress(httpx.ConnectError):
            return httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False).status_code == 200
        return False

    with running_service(**settings):
        wait_until("the first message", lambda: receiver.received, 180)
        wait_until("the service", listens, 180)
        answer = httpx.post(
            f"http://127.0.0.1:{port}/v1/incidents/{incident.id}/transitions",
            json=body,
            headers=headers_for("flags:read", "incidents:triage"),
            trust_env=False,
            timeout=60,
        )
        assert answer.status_code == 200, answer.text
        wait_until("the second message", lambda: len(receiver.received) == 2, 180)
        metrics = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text

    document = receiver.received[1].verified(SECRET)
    assert document["type"] == "io.subtext.incident.triaged.v1"
    assert (document["data"]["previous_state"], document["data"]["state"]) == ("open", "acknowledged")
    assert "do not tell" not in json.dumps(document)
    assert uuid.UUID(document["id"]).version == 5
    assert 'outcome="delivered"} ' in metrics
