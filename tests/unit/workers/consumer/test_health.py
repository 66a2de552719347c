"""The worker's open endpoints: what they tell, and what only the log may tell."""

import json
from collections.abc import Mapping
from typing import Any

import httpx
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from workers.consumer.health import Check, HealthApp, HealthServer

SECRET = "connection to 10.1.2.3 as auditor failed"


def passes() -> None:
    """Find nothing wrong."""


def fails() -> None:
    raise ConnectionError(SECRET)


def ask(app: HealthApp) -> tuple[str, dict[str, Any]]:
    answers: list[str] = []
    body = b"".join(app({"PATH_INFO": "/readyz"}, lambda status, _: answers.append(status)))
    return answers[0], json.loads(body)


def app_of(checks: Mapping[str, Check], remembered_seconds: float = 0.0) -> HealthApp:
    return HealthApp(CollectorRegistry(), checks, lambda: True, remembered_seconds)


def test_readyz_names_the_check_that_fails_and_the_log_says_why() -> None:
    with capture_logs() as logged:
        status, body = ask(app_of({"postgres": fails, "redis": passes}))

    assert status == "503 Service Unavailable"
    assert body == {"status": "not ready", "checks": {"postgres": "failed", "redis": "ok"}}
    assert [(entry["event"], entry["check"], entry["error"]) for entry in logged] == [
        ("readiness_check_failed", "postgres", f"ConnectionError: {SECRET}")
    ]


def test_a_failure_that_lasts_is_logged_once_and_again_after_it_was_over() -> None:
    checks: dict[str, Check] = {"redis": fails}
    app = app_of(checks)

    with capture_logs() as logged:
        ask(app)
        ask(app)
        checks["redis"] = passes
        assert ask(app)[0] == "200 OK"
        checks["redis"] = fails
        ask(app)

    assert len(logged) == 2


def test_many_who_ask_cost_one_look_at_the_stores() -> None:
    looks: list[int] = []
    app = app_of({"postgres": lambda: looks.append(1)}, remembered_seconds=60.0)

    assert {ask(app)[0] for _ in range(50)} == {"200 OK"}

    assert len(looks) == 1


def test_head_is_answered_as_get_without_a_body() -> None:
    server = HealthServer("127.0.0.1", 0, CollectorRegistry(), {"redis": fails})
    answers = {
        path: httpx.head(f"http://127.0.0.1:{server.port}{path}", trust_env=False)
        for path in ("/healthz", "/readyz", "/metrics", "/other")
    }
    server.close()

    assert [answer.status_code for answer in answers.values()] == [200, 503, 200, 404]
    assert all(answer.content == b"" for answer in answers.values())
