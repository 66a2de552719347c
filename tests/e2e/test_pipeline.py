"""From a chat request to REST through real vLLM, Valkey and PostgreSQL, and what the metrics say."""

import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from deploy import queries
from deploy.local import launch
from service.keeper.app import job_names
from service.keeper.metrics import KeeperMetrics
from service.sequencer.metrics import LogMetrics
from tests.e2e.pipeline import SERVED_MODEL, Pipeline, wait_for
from workers.canary import prompts
from workers.canary.metrics import CanaryMetrics

pytestmark = pytest.mark.vllm
DECODE_SECONDS = 120.0
CANARIES = Path(__file__).resolve().parents[2] / "deploy" / "canaries.yaml"


def test_a_chat_request_can_be_read_back_as_explanations(pipeline: Pipeline) -> None:
    request_id = pipeline.chat("Why is the sky blue? Answer in two sentences.", max_tokens=32)

    explanations = wait_for("explanations", lambda: pipeline.explanations_of(request_id), DECODE_SECONDS)

    phases = {item["phase"] for item in explanations}
    assert phases <= {"prefill", "decode"}
    for item in explanations:
        assert item["request_id"] == request_id
        assert item["text"]
        assert item["hypothesis"] is True
        assert -1.0 <= item["fidelity"]["cosine"] <= 1.0
        fidelity = item["fidelity"]
        if fidelity["verified"]:
            assert fidelity["fve_beyond_token"] > fidelity["verified_above"] >= 0.0
            assert item["well_formed"]
        assert fidelity["candidates"] == launch.CANDIDATES
        assert fidelity["calibration_n"] > 0
        assert item["claims"]["register"]
        assert 0.0 < item["inclusion_probability"] <= 1.0
        assert item["stratum"] == "uniform"
        assert 0.0 <= item["baseline_probability"] <= item["inclusion_probability"]


def test_everything_about_a_request_is_in_one_answer(pipeline: Pipeline) -> None:
    request_id = pipeline.chat("List three uses of a paper clip.", max_tokens=32)
    wait_for("explanations", lambda: pipeline.explanations_of(request_id), DECODE_SECONDS)

    answer = pipeline.get(f"/v1/requests/{request_id}")

    assert answer["request_id"] == request_id
    (capture,) = answer["captures"]
    assert capture["capture_id"]
    assert capture["samples"]


def test_two_requests_of_one_id_are_two_captures(pipeline: Pipeline) -> None:
    request_id = f"again-{uuid.uuid4()}"
    for prompt in ("List three uses of a paper clip.", "Name two rivers of Spain."):
        pipeline.chat(prompt, max_tokens=16, request_id=request_id)

    def captures() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = pipeline.get(f"/v1/requests/{request_id}")["captures"]
        return found if len(found) == 2 and all(capture["explanations"] for capture in found) else []

    wait_for("explanations", lambda: pipeline.explanations_of(request_id), DECODE_SECONDS)
    wait_for("both captures", captures, DECODE_SECONDS)

    one, other = captures()
    assert one["capture_id"] != other["capture_id"]
    assert one["samples"]
    assert other["samples"]


def test_the_same_request_id_is_what_the_client_sent(pipeline: Pipeline) -> None:
    request_id = f"order {uuid.uuid4()}-1"

    pipeline.chat("Say hello.", request_id=request_id)

    wait_for("an id with space and suffix", lambda: pipeline.explanations_of(request_id), DECODE_SECONDS)


def test_coverage_adds_up_once_everything_has_drained(pipeline: Pipeline) -> None:
    def balance() -> dict[str, Any]:
        [balance] = pipeline.get("/v1/coverage", model=SERVED_MODEL)["reconciliation"]
        return dict(balance)

    def in_flight() -> dict[str, int]:
        # A hop whose far side reports first has fewer than none in flight for a moment.
        return {hop["hop"]: max(0, hop["in_flight"]) for hop in balance()["hops"]}

    pipeline.chat("Is anybody there?")
    wait_for(
        "counts of every hop", lambda: all(hop["rows_in"] for hop in balance()["hops"]), DECODE_SECONDS
    )
    before = in_flight()  # what tests that killed Valkey lost on purpose is never consumed
    for request_id in pipeline.chat_many(4):
        wait_for("explanations", lambda r=request_id: pipeline.explanations_of(r), DECODE_SECONDS)  # type: ignore[misc]

    def reconciles() -> bool:
        now = balance()
        return now["balanced"] and all(
            hop["difference"] == 0 and hop["in_flight"] <= before[hop["hop"]] for hop in now["hops"]
        )

    wait_for(lambda: f"sums of every hop agree: {before} before, {balance()}", reconciles, DECODE_SECONDS)


def test_every_query_of_rules_and_dashboards_has_its_metric(pipeline: Pipeline) -> None:
    request_id = pipeline.chat("What is two plus two?")
    wait_for("explanations", lambda: pipeline.explanations_of(request_id), DECODE_SECONDS)
    ports = pipeline.plan.ports
    pages = [
        pipeline.scrape(port)
        for port in (ports.openai, ports.plugin, ports.sidecar, ports.worker, ports.api)
    ]

    pages += [canary_page(), log_page(), keeper_page()]

    assert queries.unresolved(queries.shipped_queries(), pages) == []


def canary_page() -> str:
    """Return what the canaries' runner shows before its first run; the demo starts none."""
    registry = CollectorRegistry()
    concepts = prompts.load(CANARIES)
    CanaryMetrics(registry, SERVED_MODEL, concepts, 20, longest_seconds=60.0, started=0.0)
    return generate_latest(registry).decode()


def log_page() -> str:
    """Return what the evidence log's sequencer shows before its first look; this pipeline starts none."""
    registry = CollectorRegistry()
    LogMetrics(registry)
    return generate_latest(registry).decode()


def keeper_page() -> str:
    """Return what the keeper shows before its first job; this pipeline starts none."""
    registry = CollectorRegistry()
    KeeperMetrics(registry, job_names())
    return generate_latest(registry).decode()


def test_metrics_move_with_traffic(pipeline: Pipeline) -> None:
    ports = pipeline.plan.ports
    stored = pipeline.metric(ports.worker, "subtext_explanations_stored_total", model=SERVED_MODEL)

    request_id = pipeline.chat("Name a river in France.")
    wait_for("explanations", lambda: pipeline.explanations_of(request_id), DECODE_SECONDS)

    assert pipeline.metric(ports.worker, "subtext_explanations_stored_total", model=SERVED_MODEL) > stored
    assert pipeline.metric(ports.plugin, "subtext_capture_enabled", model=SERVED_MODEL) == 1.0


@pytest.mark.parametrize("path", ["/v1/explanations", "/v1/flags", "/v1/coverage", "/v1/requests/x"])
def test_without_a_key_nothing_is_told(pipeline: Pipeline, path: str) -> None:
    response = httpx.get(f"{pipeline.api_url}{path}", trust_env=False, timeout=20)

    assert response.status_code == httpx.codes.UNAUTHORIZED
    assert response.headers["content-type"].startswith("application/problem+json")
