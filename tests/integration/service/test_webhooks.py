import base64
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
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session, sessionmaker
from standardwebhooks import WebhookVerificationError

from service.incident_metrics import IncidentMetrics
from service.incident_watch import IncidentWatch
from service.store.engine import session_factory
from service.store.tables import Incident, WebhookDelivery
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
    assert data["link"] == f"https://audit.example/v1/incidents/{incident.id}"
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
    IncidentWatch(sessions, IncidentMetrics(shown), ["away", "on-call"]).look(dt.datetime.now(dt.UTC))
    waiting = {
        name: shown.get_sample_value("subtext_webhook_pending_messages", {"destination": name})
        for name in ("away", "on-call")
    }
    assert waiting == {"away": 1, "on-call": 0}
    ages = {"model": "org/tiny", "severity": "high"}
    assert (shown.get_sample_value("subtext_incident_oldest_open_age_seconds", ages) or 0) > 0


def test_a_message_that_nobody_saw_for_a_day_is_not_sent_any_more(
    *,
    receiver: Receiver,
    destination: Destination,
    make_courier: Callable[..., Courier],
    incident: Incident,
    database_url: str,
    registry: CollectorRegistry,
) -> None:
    assert incident
    with psycopg.connect(database_url) as owner:
        owner.execute("UPDATE webhook_messages SET created_at = now() - interval '25 hours'")

    assert not make_courier(destination).deliver_next(destination)

    assert receiver.received == []
    labels = {"destination": "on-call", "outcome": "expired"}
    assert registry.get_sample_value("subtext_webhook_deliveries_total", labels) == 1


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
    with running_service(**settings):
        wait_until("the first message", lambda: receiver.received, 60)
        answer = httpx.post(
            f"http://127.0.0.1:{port}/v1/incidents/{incident.id}/transitions",
            json=body,
            headers=headers_for("flags:read", "incidents:triage"),
            trust_env=False,
        )
        assert answer.status_code == 200, answer.text
        wait_until("the second message", lambda: len(receiver.received) == 2, 30)
        metrics = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text

    document = receiver.received[1].verified(SECRET)
    assert document["type"] == "io.subtext.incident.triaged.v1"
    assert (document["data"]["previous_state"], document["data"]["state"]) == ("open", "acknowledged")
    assert "do not tell" not in json.dumps(document)
    assert uuid.UUID(document["id"]).version == 5
    assert 'outcome="delivered"} ' in metrics
