"""Whatever breaks downstream, every chat request succeeds and a metric says what is lost.

What breaks in the plugin itself: tests/hostile/test_breaker.py.
"""

import pytest

from tests.e2e.pipeline import Pipeline, wait_for

pytestmark = pytest.mark.vllm
REQUESTS = 16
RECOVERY_SECONDS = 180.0


def dropped(pipeline: Pipeline, port: int, **labels: str) -> float:
    return pipeline.metric(port, "subtext_activations_dropped_total", **labels)


def test_requests_succeed_while_the_sidecar_is_dead(pipeline: Pipeline) -> None:
    ports = pipeline.plan.ports
    before = dropped(pipeline, ports.plugin)
    spec = pipeline.kill("sidecar")
    try:
        assert len(pipeline.chat_many(REQUESTS)) == REQUESTS

        wait_for("drops counted", lambda: dropped(pipeline, ports.plugin) > before, RECOVERY_SECONDS)
    finally:
        pipeline.start(spec)
        pipeline.wait_ready(ports.sidecar, "/readyz", RECOVERY_SECONDS)
    asked: list[str] = []

    def is_read_again() -> bool:
        # The plugin looks for a lost sidecar every two seconds: what comes before is dropped and counted.
        asked.append(pipeline.chat("Is anybody listening again?"))
        return any(pipeline.explanations_of(request_id) for request_id in asked)

    wait_for("capture goes on", is_read_again, RECOVERY_SECONDS)


def test_requests_succeed_while_valkey_is_dead(pipeline: Pipeline) -> None:
    ports = pipeline.plan.ports
    spec = pipeline.kill("valkey")
    try:
        assert len(pipeline.chat_many(REQUESTS)) == REQUESTS

        wait_for(
            "the sidecar says so",
            lambda: pipeline.metric(ports.sidecar, "subtext_sidecar_redis_up") == 0.0,
            RECOVERY_SECONDS,
        )
    finally:
        pipeline.start(spec)
        pipeline.wait_ready(ports.sidecar, "/readyz", RECOVERY_SECONDS)
        pipeline.wait_ready(ports.worker, "/readyz", RECOVERY_SECONDS)
    request_id = pipeline.chat("Is anybody listening again?")
    wait_for("capture goes on", lambda: pipeline.explanations_of(request_id), RECOVERY_SECONDS)
