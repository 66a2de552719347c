"""The service as clients reach it: over TLS, on this machine alone, or behind nginx under a prefix."""

import contextlib
import re
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy.orm import Session, sessionmaker

from service import auth
from service.store import keys
from subtext_sidecar.contract.listening import TlsFiles
from subtext_sidecar.shipper.health import Health
from subtext_sidecar.shipper.health import HealthServer as SidecarServer
from tests.integration.service import seed
from tests.support import ROOT
from tests.support.service import running_service
from tests.support.services import free_port, running_nginx, write_certificate
from tests.support.waiting import wait_until
from workers.consumer.health import HealthServer as WorkerServer

EVERYWHERE = "0.0.0.0"  # noqa: S104  # what must be refused


def client_of(certificate: Path, port: int, key: str = "") -> httpx.Client:
    return httpx.Client(
        base_url=f"https://127.0.0.1:{port}",
        verify=ssl.create_default_context(cafile=str(certificate)),
        headers={"X-API-Key": key} if key else {},
        trust_env=False,
    )


def answers(client: httpx.Client, path: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return client.get(path).status_code == httpx.codes.OK
    return False


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    return write_certificate(tmp_path)


def test_other_machines_are_not_served_without_tls_or_a_reason(reader_url: str) -> None:
    with running_service(database_url=reader_url, http_host=EVERYWHERE) as process:
        _, said = process.communicate(timeout=60)

    assert process.returncode == 2
    assert "SUBTEXT_PLAIN_HTTP=behind-proxy" in said
    assert "SUBTEXT_TLS_CERT_FILE" in said


def test_rest_over_tls_and_nothing_in_plain(reader_url: str, certificate: tuple[Path, Path]) -> None:
    port = free_port()
    files = {"tls_cert_file": str(certificate[0]), "tls_key_file": str(certificate[1])}
    with (
        running_service(database_url=reader_url, http_host=EVERYWHERE, http_port=str(port), **files),
        client_of(certificate[0], port) as client,
    ):
        wait_until("HTTPS", lambda: answers(client, "/readyz"), 60)
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False)


def test_metrics_of_sidecar_and_worker_over_tls(
    certificate: tuple[Path, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    tls = TlsFiles(certificate=certificate[0], key=certificate[1])
    worker = WorkerServer("127.0.0.1", 0, CollectorRegistry(), {}, tls=tls)
    with SidecarServer("127.0.0.1", 0, Health(), CollectorRegistry(), tls) as sidecar:
        for port in (worker.port, sidecar.port):
            with pytest.raises(httpx.TransportError):
                httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False)
            with client_of(certificate[0], port) as client:
                assert answers(client, "/healthz")
                assert answers(client, "/metrics")
                assert (client.head("/metrics").status_code, client.head("/metrics").content) == (200, b"")
    worker.close()

    assert capfd.readouterr().err == ""


def certificate_at(port: int) -> str:
    """Which certificate a new connection gets."""
    return ssl.get_server_certificate(("127.0.0.1", port))


def test_a_new_certificate_is_served_without_a_restart_and_a_broken_one_is_not(
    reader_url: str, certificate: tuple[Path, Path]
) -> None:
    tls = TlsFiles(certificate=certificate[0], key=certificate[1])
    worker = WorkerServer("127.0.0.1", 0, CollectorRegistry(), {}, tls=tls)
    port = free_port()
    files = {"tls_cert_file": str(certificate[0]), "tls_key_file": str(certificate[1])}
    with (
        SidecarServer("127.0.0.1", 0, Health(), CollectorRegistry(), tls) as sidecar,
        running_service(database_url=reader_url, http_port=str(port), **files),
        client_of(certificate[0], port) as first,
    ):
        ports = [worker.port, sidecar.port, port]
        wait_until("HTTPS", lambda: answers(first, "/readyz"), 60)
        before = certificate[0].read_text()
        assert [certificate_at(one) for one in ports] == [before] * 3

        write_certificate(certificate[0].parent)
        after = certificate[0].read_text()
        assert after != before
        assert [certificate_at(one) for one in ports] == [after] * 3
        assert answers(first, "/readyz")  # a connection of before goes on

        certificate[1].write_text("nothing of a key")
        assert [certificate_at(one) for one in ports] == [after] * 3
        write_certificate(certificate[0].parent)
        assert [certificate_at(one) for one in ports] == [certificate[0].read_text()] * 3
    worker.close()


@pytest.fixture
def proxied(
    reader_url: str, certificate: tuple[Path, Path], state_dir: Path, sessions: sessionmaker[Session]
) -> Iterator[httpx.Client]:
    """The service behind deploy/proxy/nginx.conf, as a client with a key sees it."""
    secret = auth.new_secret()
    with sessions.begin() as session:
        keys.add_key(session, name="test", secret_sha256=auth.digest(secret), scopes=["admin"])
        audited = seed.add_model(session)
        for number in range(3):
            seed.add_explanation(session, audited, request_id=f"chat/{number}")
    outside, inside = free_port(), free_port()
    recipe = (ROOT / "deploy/proxy/nginx.conf").read_text()
    replacements = {
        "listen 443 ssl": f"listen 127.0.0.1:{outside} ssl",
        "/etc/subtext/tls/fullchain.pem": str(certificate[0]),
        "/etc/subtext/tls/privkey.pem": str(certificate[1]),
        "/var/log/nginx/subtext-error.log": "/dev/stderr",
        "127.0.0.1:8100": f"127.0.0.1:{inside}",
    }
    for shown, used in replacements.items():
        assert shown in recipe
        recipe = recipe.replace(shown, used)
    settings = {
        "http_host": EVERYWHERE,
        "http_port": str(inside),
        "plain_http": "behind-proxy",
        "root_path": "/subtext",
    }
    with (
        running_service(database_url=reader_url, **settings),
        running_nginx(recipe, outside, state_dir),
        client_of(certificate[0], outside, secret) as client,
    ):
        wait_until("the service answers through nginx", lambda: answers(client, "/subtext/readyz"), 60)
        yield client


def test_behind_nginx_every_link_keeps_the_prefix(proxied: httpx.Client) -> None:
    page = proxied.get("/subtext/v1/explanations", params={"limit": "1", "request": "chat/1"})
    assert len(page.json()["items"]) == 1

    seen, url = set[Any](), "/subtext/v1/explanations?limit=1"
    while url:
        page = proxied.get(url)
        assert page.status_code == 200
        assert page.headers["cache-control"] == "no-store"
        seen |= {item["request_id"] for item in page.json()["items"]}
        url = page.links.get("next", {}).get("url", "")
        assert not url or url.startswith("/subtext/v1/explanations?")
    assert seen == {"chat/0", "chat/1", "chat/2"}

    docs = proxied.get("/subtext/docs").text
    for path in {*re.findall(r'(?:src|href)="([^"]+)"', docs), *re.findall(r"url: '([^']+)'", docs)}:
        assert path.startswith("/subtext/")
        assert proxied.get(path).status_code == 200
    described = proxied.get("/subtext/openapi.json").json()
    assert described["servers"] == [{"url": "/subtext"}]


def test_behind_nginx_a_slash_in_a_request_id_stays_one(proxied: httpx.Client) -> None:
    for written in ("chat%2F1", "chat/1"):
        answer = proxied.get(f"/subtext/v1/requests/{written}")
        assert answer.status_code == 200
        assert answer.json()["request_id"] == "chat/1"


def test_behind_nginx_metrics_are_hidden_and_other_paths_lead_nowhere(proxied: httpx.Client) -> None:
    for path in ("/subtext/metrics", "/subtext//metrics", "/subtext/%6detrics", "/v1/models", "/"):
        assert proxied.get(path).status_code == 404, path
    assert proxied.get("/x/../subtext/readyz").status_code in {200, 400}  # the client may resolve it
