"""One visit of a round to an arm: bring it into force, touch its server, measure, and put it back."""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from bench import cpu
from bench.arms import IDLE_POLICY, Arm
from bench.load import Load, Target, run_load
from bench.results import CaptureFigures, RunFigures
from bench.scrape import Scrape, scrape
from bench.servers import Running, RunningServer, RunningSidecar
from bench.traffic import ChatRequest
from deploy.local.model import MODEL_NAME

_POLL_SECONDS = 0.1
_DEADLINE_SECONDS = 30.0
_FILL_CONCURRENCY = 32
_TOUCH_CONCURRENCY = 4
_OVERHEAD = "subtext_capture_overhead_seconds"
_ENABLED = "subtext_capture_enabled"


class VisitError(RuntimeError):
    """An arm did not do what it should; its figures would mean nothing."""


class _Observation(NamedTuple):
    plugin: Scrape
    sidecar_cpu_seconds: float


class Visitor:
    """Runs loads against one set of servers."""

    def __init__(self, running: Running, run_id: str) -> None:
        """``run_id``: unique to this process, so that no prefix cache knows its requests."""
        self._running = running
        self._run_id = run_id
        self._loads = 0
        self._sent: Counter[str] = Counter()  # requests, by server

    def visit(
        self, arm: Arm, work: dict[int, list[ChatRequest]], touch: Sequence[ChatRequest]
    ) -> list[RunFigures]:
        """Measure ``work``, given by concurrency, after an unmeasured ``touch``; raises VisitError."""
        with self._in_force(arm, touch):
            self._load(arm, touch, _TOUCH_CONCURRENCY)
            return [self._measure(arm, turns, concurrency) for concurrency, turns in work.items()]

    def warm_up(self, arm: Arm, turns: Sequence[ChatRequest], concurrency: int) -> Load:
        """Send traffic whose figures are not kept for the table."""
        return self._load(arm, turns, concurrency)

    def _measure(self, arm: Arm, turns: Sequence[ChatRequest], concurrency: int) -> RunFigures:
        server = self._running.servers[arm.server.name]
        sidecar = self._sidecar_of(arm)
        observed = None if sidecar is None else self._observe(arm, sidecar)
        before = cpu.of_server(server.process.pid)
        load = self._load(arm, turns, concurrency)
        after = cpu.of_server(server.process.pid)
        return RunFigures(
            arm=arm.name,
            concurrency=concurrency,
            requests=load.requests,
            tokens=load.tokens,
            wall_seconds=load.wall_seconds,
            engine_cpu_seconds=after.engine - before.engine,
            server_cpu_seconds=after.server - before.server,
            ttft_seconds=load.ttft_seconds,
            gap_seconds=load.gap_seconds,
            capture=None
            if sidecar is None or observed is None
            else _figures(observed, self._observe(arm, sidecar)),
        )

    def _sidecar_of(self, arm: Arm) -> RunningSidecar | None:
        return None if arm.policy is None else self._running.sidecar

    def _observe(self, arm: Arm, sidecar: RunningSidecar) -> _Observation:
        """Return what the capture side says once it has told of every request so far."""
        sent = self._sent[arm.server.name]
        wait_until(
            lambda: self._plugin().total("subtext_requests_seen_total") >= sent,
            f"the plugin has told of {sent} requests; it says {self._plugin().by(_ENABLED, 'reason')}",
        )
        return _Observation(self._plugin(), cpu.of_tree(sidecar.process.pid))

    def _load(self, arm: Arm, turns: Sequence[ChatRequest], concurrency: int) -> Load:
        server: RunningServer = self._running.servers[arm.server.name]
        server.process.check()
        self._loads += 1
        target = Target(
            base_url=server.base_url,
            model=MODEL_NAME,
            run_id=f"{self._run_id}-{self._loads}",
            extra_body=arm.extra_body,
        )
        self._sent[arm.server.name] += len(turns)
        return run_load(target, turns, concurrency)

    @contextlib.contextmanager
    def _in_force(self, arm: Arm, touch: Sequence[ChatRequest]) -> Iterator[None]:
        sidecar = self._running.sidecar
        if arm.policy is None or sidecar is None:
            yield
            return
        # Two arms may have the same request rate: by way of idle, the change can be seen.
        for policy in (IDLE_POLICY, arm.policy):
            sidecar.set_policy(policy)
            self._wait_for_rate(float(policy["request_rate"]))
        if not arm.is_reader_stopped:
            yield
            return
        sidecar.suspend()
        try:
            self._fill(arm, touch)
            yield
        finally:
            sidecar.resume()
        self._wait_until_read(sidecar)

    def _fill(self, arm: Arm, touch: Sequence[ChatRequest]) -> None:
        """Send traffic until the buffers between plugin and sidecar are full and rows are dropped."""
        before = self._plugin()
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while not self._plugin().since(before).total("subtext_activations_dropped_total", stage="plugin"):
            if time.monotonic() > deadline:
                raise VisitError(f"{arm.name}: the reader is stopped, and still no row is dropped")
            self._load(arm, touch, _FILL_CONCURRENCY)

    def _wait_for_rate(self, rate: float) -> None:
        wait_until(
            lambda: self._plugin().total("subtext_sampling_probability_ratio") == rate,
            f"the plugin samples {rate} of requests",
        )

    def _wait_until_read(self, sidecar: RunningSidecar) -> None:
        sent = self._plugin().total("subtext_activations_captured_total")
        wait_until(
            lambda: _has_caught_up(scrape(sidecar.metrics_url), sent),
            "the sidecar has caught up",
        )

    def _plugin(self) -> Scrape:
        return scrape(self._running.plugin_metrics_url)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition; raises VisitError when it does not come about."""
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise VisitError(f"not within {_DEADLINE_SECONDS:.0f} s: {what}")
        time.sleep(_POLL_SECONDS)


def _has_caught_up(sidecar: Scrape, sent: float) -> bool:
    # Counts follow the rows on the same socket: who has read the count has read the rows.
    is_read = sidecar.total("subtext_activations_captured_total") >= sent
    return is_read and not sidecar.total("subtext_sidecar_buffer_bytes")


def _figures(before: _Observation, after: _Observation) -> CaptureFigures:
    grown = after.plugin.since(before.plugin)
    dropped = {
        reason: int(rows)
        for reason, rows in grown.by("subtext_activations_dropped_total", "reason").items()
    }
    handed_over = int(grown.total("subtext_activations_captured_total"))
    return CaptureFigures(
        overhead_seconds={
            sampled: grown.median(_OVERHEAD, sampled=sampled) for sampled in ("none", "some")
        },
        requests_seen=int(grown.total("subtext_requests_seen_total")),
        requests_sampled=int(grown.total("subtext_requests_sampled_total")),
        rows_sampled=handed_over + sum(dropped.values()),
        rows_handed_over=handed_over,
        dropped=dropped,
        sidecar_cpu_seconds=after.sidecar_cpu_seconds - before.sidecar_cpu_seconds,
    )
