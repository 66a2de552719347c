"""Capture inside the engine's step: follow requests, pick rows, gather them, hand them over.

Runs on the engine's thread. It reads no tensor, waits for nothing, allocates no tensor memory and
keeps no tensor of the runner past the step. It may raise: ``hooks`` is the boundary that turns
capture off then.

Counts: rows that find no room are counted here, all others by the sender when their fate is known,
so that what a heartbeat carries always adds up.
"""

import logging
import time
from collections import Counter
from typing import Any

from subtext_sidecar.ledger import SECONDS_PER_MINUTE, Cell, Ledger
from subtext_sidecar.plugin.activation import LOGGER
from subtext_sidecar.plugin.handover import Batch, Handover, Row
from subtext_sidecar.plugin.overhead import Overhead
from subtext_sidecar.plugin.ring import Ring, open_ring
from subtext_sidecar.plugin.step import Runner, Step
from subtext_sidecar.plugin.watchlist import NewRequest, Picked, Watchlist
from subtext_sidecar.policy import CapturePolicy


class Capture:
    """Chooses and gathers rows. ``after_execute`` and ``after_sample`` alternate, once a step."""

    def __init__(
        self,
        *,
        policy: CapturePolicy,
        model: str,
        ledger: Ledger,
        ring: Ring,
        handover: Handover,
        randomized_ids: bool,
    ) -> None:
        self.overhead = Overhead()
        self._model = model
        self._ledger = ledger
        self._ring = ring
        self._handover = handover
        self._watchlist = Watchlist(policy, self._count, randomized_ids=randomized_ids)
        self._step: Step | None = None
        self._picked: Picked | None = None
        self._spent_seconds = 0.0

    @property
    def request_rate(self) -> float:
        """Return the probability with which a request of the uniform stratum is sampled now."""
        return self._watchlist.effective_request_rate

    def set_policy(self, policy: CapturePolicy) -> None:
        """Decide about later requests by this policy. Safe to call from the sender's thread."""
        self._watchlist.set_policy(policy)

    def after_execute(self, runner: Runner, scheduled: Any) -> None:
        """Decide which rows of the launched batch to take.

        ``scheduled`` is vLLM's SchedulerOutput. This must come after the runner's execute_model,
        which is what brings the batch into its final order.
        """
        started = time.perf_counter()
        self._picked = None
        watchlist = self._watchlist
        if scheduled.finished_req_ids:
            watchlist.forget(scheduled.finished_req_ids)
        if scheduled.scheduled_new_reqs:
            watchlist.add(map(_new_request, scheduled.scheduled_new_reqs), time.monotonic())
        if len(watchlist) and (total := scheduled.total_num_scheduled_tokens):
            per_request = scheduled.num_scheduled_tokens
            longest = 1 if total == len(per_request) else max(per_request.values())
            if not watchlist.can_skip(longest):
                self._pick(runner, scheduled.scheduled_spec_decode_tokens)
        self._spent_seconds = time.perf_counter() - started

    def after_sample(self) -> None:
        """Gather the picked rows, now that the sampler has been launched and waits for nothing of ours."""
        picked = self._picked
        if picked is None:
            self.overhead.observe(self._spent_seconds, sampled=False)
            return
        started = time.perf_counter()
        step, self._step, self._picked = self._step, None, None
        if step is not None:
            self._hand_over(step, picked)
        self.overhead.observe(self._spent_seconds + time.perf_counter() - started, sampled=True)

    def _pick(self, runner: Runner, drafted: dict[str, list[int]]) -> None:
        step = runner.step()
        if step is None:
            return
        picked = self._watchlist.pick(
            step.request_ids, step.row_starts, step.first_positions, drafted, time.monotonic()
        )
        if picked.rows:
            self._step, self._picked = step, picked

    def _hand_over(self, step: Step, picked: Picked) -> None:
        ring, rows, indices = self._ring, picked.rows, picked.indices
        if not ring.fits(step):
            ring = self._replace_ring(step)
        captured_at = time.time()
        if len(rows) > ring.layout.rows:
            self._drop(rows[ring.layout.rows :], captured_at, "queue_full")
            rows, indices = rows[: ring.layout.rows], indices[: ring.layout.rows]
        if (full := ring.full(len(rows))) is not None:
            self._drop(rows, captured_at, full)
            return
        self._handover.append(Batch(rows, ring, ring.gather(step, indices), captured_at))

    def _replace_ring(self, step: Step) -> Ring:
        """Make a ring for what the model really returns; rows in the old one stay readable."""
        layout = self._ring.layout._replace(d_model=step.residual.shape[1], dtype=step.residual.dtype)
        logging.getLogger(LOGGER).info(
            "subtext: the captured block returns %s, not %s", layout, self._ring.layout
        )
        self._ring = open_ring(layout, step.residual.device)
        return self._ring

    def _drop(self, rows: list[Row], captured_at: float, reason: str) -> None:
        minute = int(captured_at) // SECONDS_PER_MINUTE
        for stratum, count in Counter(row.stratum for row in rows).items():
            cell = Cell(self._model, stratum, minute)
            self._ledger.add(cell, "rows_sampled", count)
            self._ledger.add(cell, f"dropped_{reason}", count)

    def _count(self, stratum: str, counter: str, count: int) -> None:
        self._ledger.add(Cell(self._model, stratum, int(time.time()) // SECONDS_PER_MINUTE), counter, count)


def _new_request(new: Any) -> NewRequest:
    """Read what the watchlist needs from vLLM's NewRequestData."""
    params = new.sampling_params
    return NewRequest(
        new.req_id,
        new.prompt_len,
        params.extra_args if params is not None else None,
        new.lora_request is not None,
    )
