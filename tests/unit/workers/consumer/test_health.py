"""The worker's open endpoints: what they tell, and what only the log may tell."""

import json
from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from workers.consumer.health import Check, HealthApp

SECRET = "connection to 10.1.2.3 as auditor failed"


def passes() -> None:
    """Find nothing wrong."""


def fails() -> None:
    raise ConnectionError(SECRET)


def ask(app: HealthApp) -> tuple[str, dict[str, Any]]:
    answers: list[str] = []
    body = b"".join(app({"PATH_INFO": "/readyz"}, lambda status, _: answers.append(status)))
    return answers[0], json.loads(body)


def app_of(checks: Mapping[str, Check]) -> HealthApp:
    return HealthApp(CollectorRegistry(), checks, lambda: True)


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
