"""The coverage ledger balances at every hop and in every stratum, under load and over a dead worker."""

import dataclasses
import datetime as dt
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple

import httpx
import openai
import pytest

from deploy.local import launch
from subtext_sidecar.contract.streams import activations_stream
from tests.e2e.pipeline import SERVED_MODEL, START_SECONDS, Pipeline, wait_for

pytestmark = pytest.mark.vllm
UNIFORM, OPT_IN, OPT_OUT, ABORTED = 12, 6, 6, 6
CONCURRENCY = 16
RECLAIM_SECONDS = "10"  # until a new worker takes over what the dead one held
SETTLE_SECONDS = 300.0

Hops = dict[tuple[str, str], int]  # by stratum and hop: rows that came in, less those that came out


class Burst(NamedTuple):
    """Request ids by what their clients asked for."""

    uniform: list[str]
    opt_in: list[str]
    opt_out: list[str]
    aborted: list[str]


class Ledger:
    """The coverage of this test's minutes and those before, always from the same start."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._start = (dt.datetime.now(dt.UTC) - dt.timedelta(hours=2)).isoformat()

    def report(self) -> dict[str, Any]:
        report: dict[str, Any] = self._pipeline.get(
            "/v1/coverage", **{"from": self._start, "model": SERVED_MODEL}
        )
        return report

    def left_over(self) -> Hops:
        """What earlier tests lost on purpose stays, so this is compared before and after."""
        return {
            (stratum["stratum"], hop["hop"]): sum(hop["rows_in"].values()) - sum(hop["rows_out"].values())
            for balance in self.report()["reconciliation"]
            for stratum in balance["strata"]
            for hop in stratum["hops"]
        }

    def requests(self, counter: str) -> dict[str, int]:
        counts: dict[str, int] = {}
        for entry in self.report()["counts"]:
            if entry["hop"] == "plugin":
                found = entry["counters"].get(counter, 0)
                counts[entry["stratum"]] = counts.get(entry["stratum"], 0) + found
        return counts

    def rows_in(self, hop: str) -> dict[str, int]:
        return {
            stratum["stratum"]: sum(found["rows_in"].values())
            for balance in self.report()["reconciliation"]
            for stratum in balance["strata"]
            for found in stratum["hops"]
            if found["hop"] == hop
        }


def grown(after: dict[str, int], before: dict[str, int]) -> dict[str, int]:
    more = {name: value - before.get(name, 0) for name, value in after.items()}
    return {name: value for name, value in more.items() if value}


def chat(pipeline: Pipeline, kind: str, *, wish: str | None = None, abort: bool = False) -> str:
    """Send one request; an aborted one hangs up after its first token."""
    request_id = f"ledger-{kind}-{uuid.uuid4().hex}"
    extra = {"vllm_xargs": {"subtext": wish}} if wish else {}
    client = openai.OpenAI(base_url=pipeline.openai_url, api_key="none", max_retries=0, timeout=120)
    with (
        client,
        client.chat.completions.create(
            model=SERVED_MODEL,
            messages=[{"role": "user", "content": f"Name things that one finds in a {kind} {request_id}."}],
            max_tokens=64 if abort else 8,
            temperature=0.0,
            stream=True,
            extra_body=extra,
            extra_headers={"X-Request-Id": request_id},
        ) as stream,
    ):
        for _ in stream:
            if abort:
                break
    return request_id


def burst(pipeline: Pipeline, pool: ThreadPoolExecutor) -> Iterator[tuple[str, Future[str]]]:
    """Mix the kinds, so that each batch of the engine holds several."""
    for number in range(max(UNIFORM, OPT_IN, OPT_OUT, ABORTED)):
        if number < UNIFORM:
            yield "uniform", pool.submit(chat, pipeline, "kitchen")
        if number < OPT_IN:
            yield "opt_in", pool.submit(chat, pipeline, "garden", wish="on")
        if number < OPT_OUT:
            yield "opt_out", pool.submit(chat, pipeline, "cellar", wish="off")
        if number < ABORTED:
            yield "aborted", pool.submit(chat, pipeline, "street", abort=True)


def send_and_kill_the_worker(pipeline: Pipeline) -> Burst:
    """Send the burst; when a part of it was answered, kill the worker and start another."""
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        sent = list(burst(pipeline, pool))
        wait([future for _, future in sent[: len(sent) // 3]])
        spec = pipeline.kill("worker")
        env = {**spec.env, "SUBTEXT_RECLAIM_IDLE_SECONDS": RECLAIM_SECONDS}
        pipeline.start(dataclasses.replace(spec, env=env))
        return Burst(
            **{kind: [future.result() for found, future in sent if found == kind] for kind in Burst._fields}
        )


def drained(pipeline: Pipeline) -> bool:
    waiting = pipeline.metric(pipeline.plan.ports.sidecar, "subtext_sidecar_buffer_bytes")
    stream = activations_stream(SERVED_MODEL, launch.LAYER)
    backlog = pipeline.metric(pipeline.plan.ports.worker, "subtext_stream_backlog_entries", stream=stream)
    return waiting == backlog == 0


@pytest.fixture
def ledger(pipeline: Pipeline) -> Ledger:
    """The ledger once earlier tests' rows have gone through."""
    wait_for("earlier rows", lambda: drained(pipeline), SETTLE_SECONDS)
    return Ledger(pipeline)


def test_every_hop_balances_in_every_stratum_though_the_worker_was_killed(
    pipeline: Pipeline, ledger: Ledger
) -> None:
    seen, left_over, consumed = (
        ledger.requests("requests_seen"),
        ledger.left_over(),
        ledger.rows_in("worker"),
    )

    sent = send_and_kill_the_worker(pipeline)
    pipeline.wait_ready(pipeline.plan.ports.worker, "/readyz", START_SECONDS)

    expected = {"uniform": UNIFORM + ABORTED, "opt_in": OPT_IN, "opt_out": OPT_OUT}
    wait_for(
        "every request counted in its stratum",
        lambda: grown(ledger.requests("requests_seen"), seen) == expected,
        SETTLE_SECONDS,
    )
    # Counts travel every other second: an old report may balance while newer rows are on their way.
    for request_id in (*sent.uniform, *sent.opt_in):
        wait_for("its rows", lambda r=request_id: pipeline.explanations_of(r), SETTLE_SECONDS)  # type: ignore[misc]
    wait_for(
        "every hop balanced", lambda: drained(pipeline) and balanced(ledger, left_over), SETTLE_SECONDS
    )
    more = grown(ledger.rows_in("worker"), consumed)
    assert more.keys() == {"uniform", "opt_in"}
    assert more["opt_in"] >= OPT_IN
    _assert_told_apart(pipeline, sent)
    told = {spot["code"]: spot["count"] for spot in ledger.report()["blind_spots"]}
    assert told["opt_out"] >= OPT_OUT


def balanced(ledger: Ledger, left_over: Hops) -> bool:
    now = ledger.left_over()
    return {key: rest for key, rest in now.items() if rest != left_over.get(key, 0)} == {}


def _assert_told_apart(pipeline: Pipeline, sent: Burst) -> None:
    """Each request's own page tells the stratum; of those who asked not to be read there is none."""
    for request_id in sent.opt_in:
        samples = _samples(pipeline, request_id)
        assert {sample["stratum"] for sample in samples} == {"opt_in"}
    _assert_uniform(pipeline, sent.uniform)
    for request_id in sent.opt_out:
        response = httpx.get(
            f"{pipeline.api_url}/v1/requests/{request_id}",
            headers={"Authorization": f"Bearer {pipeline.api_key}"},
            timeout=20,
            trust_env=False,
        )
        assert response.status_code == httpx.codes.NOT_FOUND


def _samples(pipeline: Pipeline, request_id: str) -> list[dict[str, Any]]:
    (capture,) = pipeline.get(f"/v1/requests/{request_id}")["captures"]
    samples: list[dict[str, Any]] = capture["samples"]
    return samples


def _assert_uniform(pipeline: Pipeline, request_ids: Sequence[str]) -> None:
    for request_id in request_ids:
        for sample in _samples(pipeline, request_id):
            assert sample["stratum"] == "uniform"
            assert 0 < sample["baseline_probability"] <= sample["inclusion_probability"] <= 1
