"""Whatever breaks downstream, every chat request succeeds and a metric says what is lost."""

import contextlib
from collections.abc import Iterator

import httpx
import pytest

from deploy.local import launch
from deploy.local.home import Home
from deploy.local.ports import Ports, choose_ports
from tests.e2e.pipeline import SERVED_MODEL, START_SECONDS, Pipeline, wait_for

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


@pytest.fixture
def faulty(pipeline: Pipeline, home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipeline]:
    """A second vLLM server whose plugin throws in the middle of a step."""
    import dataclasses

    monkeypatch.setitem(launch.SAMPLING, "fault", "sample_tokens")
    plan = dataclasses.replace(pipeline.plan, ports=choose_ports(Ports()), is_eager=True)
    faulty = Pipeline(plan, home.logs_dir)
    try:
        faulty.start(dataclasses.replace(launch.vllm(plan), name="vllm-faulty"))
        faulty.wait_ready(plan.ports.openai, "/health", START_SECONDS)
        yield faulty
    finally:
        faulty.stop_all()


def errors_counted(pipeline: Pipeline, port: int) -> bool:
    pipeline.check()
    # Beside other servers on two cores, one scrape may time out.
    with contextlib.suppress(httpx.TransportError):
        return pipeline.metric(port, "subtext_capture_errors_total") >= 1
    return False


def test_requests_succeed_while_the_plugin_throws(faulty: Pipeline) -> None:
    assert len(faulty.chat_many(REQUESTS)) == REQUESTS

    port = faulty.plan.ports.plugin
    wait_for("errors counted", lambda: errors_counted(faulty, port), RECOVERY_SECONDS)
    assert faulty.metric(port, "subtext_capture_enabled", model=SERVED_MODEL) == 0.0
