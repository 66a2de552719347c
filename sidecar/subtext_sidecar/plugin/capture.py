"""Capture inside the engine's step: follow requests, pick rows, gather them, hand them over.

Runs on the engine's thread. It reads no tensor, waits for nothing and keeps no tensor of the
runner past the step. It may raise: ``hooks`` is the boundary that turns capture off then.
"""

import time
from typing import Any, NamedTuple

from subtext_sidecar.ledger import SECONDS_PER_MINUTE, Ledger
from subtext_sidecar.plugin.handover import Batch, RowQueue
from subtext_sidecar.plugin.overhead import Overhead
from subtext_sidecar.plugin.sampling import Policy
from subtext_sidecar.plugin.staging import stage
from subtext_sidecar.plugin.step import Runner, Step
from subtext_sidecar.plugin.watchlist import NewRequest, Picked, Watchlist


class _Pending(NamedTuple):
    step: Step
    picked: Picked


class Capture:
    """Chooses and gathers rows. ``after_execute`` and ``after_sample`` alternate, once a step."""

    def __init__(
        self, *, policy: Policy, model: str, ledger: Ledger, queue: RowQueue, randomized_ids: bool
    ) -> None:
        self.overhead = Overhead()
        self._model = model
        self._ledger = ledger
        self._queue = queue
        self._watchlist = Watchlist(policy, self._count, randomized_ids=randomized_ids)
        self._pending: _Pending | None = None
        self._spent_seconds = 0.0

    def after_execute(self, runner: Runner, scheduled: Any) -> None:
        """Decide which rows of the launched batch to take.

        ``scheduled`` is vLLM's SchedulerOutput. This must come after the runner's execute_model,
        which is what brings the batch into its final order.
        """
        started = time.perf_counter()
        self._pending = None
        watchlist = self._watchlist
        if scheduled.finished_req_ids:
            watchlist.forget(scheduled.finished_req_ids)
        if scheduled.scheduled_new_reqs:
            watchlist.add(NewRequest(new.req_id, new.prompt_len) for new in scheduled.scheduled_new_reqs)
        if len(watchlist) and scheduled.total_num_scheduled_tokens:
            self._pending = self._pick(runner, scheduled.scheduled_spec_decode_tokens)
        self._spent_seconds = time.perf_counter() - started

    def after_sample(self) -> None:
        """Gather the picked rows, now that the sampler has been launched and waits for nothing of ours."""
        started = time.perf_counter()
        if self._pending is not None:
            self._hand_over(self._pending)
            self._pending = None
        self.overhead.observe(self._spent_seconds + time.perf_counter() - started)

    def _pick(self, runner: Runner, drafted: dict[str, list[int]]) -> _Pending | None:
        step = runner.step()
        if step is None:
            return None
        picked = self._watchlist.pick(step.request_ids, step.row_starts, step.first_positions, drafted)
        return _Pending(step, picked) if picked.rows else None

    def _hand_over(self, pending: _Pending) -> None:
        captured_at = time.time()
        minute = int(captured_at) // SECONDS_PER_MINUTE
        count = len(pending.picked.rows)
        self._ledger.add(self._model, minute, "rows_sampled", count)
        if not self._queue.has_room(count):
            self._ledger.add(self._model, minute, "dropped_queue_full", count)
            return
        staged = stage(pending.step, pending.picked.indices)
        self._queue.put(Batch(pending.picked.rows, staged, captured_at))

    def _count(self, counter: str, count: int) -> None:
        self._ledger.add(self._model, int(time.time()) // SECONDS_PER_MINUTE, counter, count)
