"""An error in the middle of a step of a real server: all are served, and capture comes back by itself."""

import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest

from tests.support.services import cloned_database, free_port, running_valkey
from tests.support.vllm.audited import MODEL, PROMPT_ROWS, Audited, Request, audited, make_model, metric_in

pytestmark = pytest.mark.vllm

REQUESTS = 4
TOKENS = 12
ROWS = PROMPT_ROWS + TOKENS - 1  # the last token of an answer is never computed


@pytest.fixture
def plugin_port() -> int:
    """Where the plugin tells its own metrics."""
    return free_port()


@pytest.fixture
def parts(
    tmp_path_factory: pytest.TempPathFactory,
    model_dir: Path,
    postgres_server: str,
    template_database: str,
    plugin_port: int,
) -> Iterator[Audited]:
    """All parts, with a plugin that throws in the fourth step that it samples."""
    folder = tmp_path_factory.mktemp("h")
    model = make_model(tmp_path_factory.mktemp("model"), model_dir)
    fault = {"fault": "sample_tokens", "fault_uses": [3, 4], "metrics_port": plugin_port}
    with (
        cloned_database(postgres_server, template_database) as database_url,
        running_valkey(tmp_path_factory.mktemp("valkey")) as redis_url,
        audited(folder, model, database_url, redis_url, fault) as running,
    ):
        yield running


def chat(request_id: str) -> Request:
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": request_id}],
        "max_tokens": TOKENS,
        "ignore_eos": True,
        "temperature": 0.0,
    }
    return Request("/v1/chat/completions", body, {"X-Request-Id": request_id})


def serve(parts: Audited) -> Sequence[str]:
    """Send honest requests, all of which are answered; return their ids."""
    ids = [f"innocent {secrets.token_hex(8)}" for _ in range(REQUESTS)]
    answers = parts.send([chat(one) for one in ids])
    assert [one.status_code for one in answers] == [200] * REQUESTS
    assert [one.json()["usage"]["completion_tokens"] for one in answers] == [TOKENS] * REQUESTS
    return ids


def missed(parts: Audited, reason: str) -> float:
    return parts.metric("subtext_capture_unobservable_total", model=MODEL, reason=reason)


def test_after_an_error_in_a_step_all_are_served_and_new_requests_are_read_again(
    parts: Audited, plugin_port: int
) -> None:
    def own_metric(name: str, **labels: str) -> float:
        answer = httpx.get(f"http://127.0.0.1:{plugin_port}/metrics", timeout=30, trust_env=False)
        return metric_in(answer.text, name, **labels)

    interrupted = serve(parts)
    parts.wait_for("the plugin's word", lambda: own_metric("subtext_capture_errors_total") == 1)
    assert own_metric("subtext_capture_enabled", model=MODEL) == 0.0
    parts.wait_for("the error", lambda: parts.metric("subtext_capture_errors_total") == 1)
    unseen = serve(parts)

    parts.wait_for(
        "every request is counted",
        lambda: parts.metric("subtext_requests_seen_total") + missed(parts, "capture_off") == 2 * REQUESTS,
    )
    assert missed(parts, "capture_off") >= REQUESTS
    assert missed(parts, "interrupted") == parts.metric("subtext_requests_sampled_total") > 0
    assert not any(parts.rows_of(one) for one in unseen)
    assert all(sum(parts.rows_of(one)) < ROWS for one in interrupted)

    parts.wait_for(
        "capture is on again",
        lambda: parts.metric("subtext_capture_enabled", model=MODEL, reason="ok") == 1.0,
    )
    off = missed(parts, "capture_off")
    for one in serve(parts):
        parts.wait_for_rows(one, [ROWS])
    parts.wait_for(
        "every request is counted",
        lambda: parts.metric("subtext_requests_seen_total") + off == 3 * REQUESTS,
    )
    assert missed(parts, "capture_off") == off
    assert parts.metric("subtext_capture_errors_total") == 1
