"""Capture inside the engine's step: follow requests, pick rows, gather them, hand them over.

Runs on the engine's thread. It reads no tensor, waits for nothing, allocates no tensor memory and
keeps no tensor of the runner past the step. It may raise: ``hooks`` is the boundary that turns
capture off then. What was begun is given up, and a new capture goes on in the same memory.

Counts: rows that find no room are counted here, all others by the sender when their fate is known,
so that what a heartbeat carries always adds up.
"""

import logging
from collections import Counter
from time import perf_counter, time
from typing import Any, Final

from subtext_sidecar.contract.counters import CounterName, PluginCounter, Stratum
from subtext_sidecar.contract.tenant import DEFAULT_TENANT
from subtext_sidecar.local.ledger import SECONDS_PER_MINUTE, Cell, Ledger
from subtext_sidecar.local.policy import CapturePolicy
from subtext_sidecar.plugin.overhead import Overhead
from subtext_sidecar.plugin.sampling.canary import CanaryGate
from subtext_sidecar.plugin.sampling.gap import Gap
from subtext_sidecar.plugin.sampling.memory import Memory
from subtext_sidecar.plugin.sampling.split import EngineHalves
from subtext_sidecar.plugin.sampling.subject import SubjectReader
from subtext_sidecar.plugin.sampling.watchlist import NewRequest, RowSelection, Watchlist
from subtext_sidecar.plugin.secret import DrawKey
from subtext_sidecar.plugin.step import Runner, Step
from subtext_sidecar.plugin.transfer.handover import Batch, Handover
from subtext_sidecar.plugin.transfer.ring import Ring, open_ring
from subtext_sidecar.plugin.vllm.activation import LOGGER

_UNIFORM: Final = Stratum.UNIFORM
_ROWS_SAMPLED: Final = PluginCounter.ROWS_SAMPLED
_QUEUE_FULL: Final = PluginCounter.DROPPED_QUEUE_FULL
_ERROR: Final = PluginCounter.DROPPED_ERROR


class Capture:
    """Chooses and gathers rows. ``after_execute`` and ``after_sample`` alternate, once a step."""

    def __init__(
        self,
        *,
        runner: Runner,
        policy: CapturePolicy,
        model: str,
        ledger: Ledger,
        ring: Ring,
        handover: Handover,
        context: int,
        key: DrawKey,
        halves: EngineHalves,
        randomized_ids: bool,
        tenant: str = DEFAULT_TENANT,
        canaries: CanaryGate | None = None,
        overhead: Overhead | None = None,
        memory: Memory | None = None,
        known: dict[str, int] | None = None,
        configuration: str | None = None,
        subjects: SubjectReader | None = None,
    ) -> None:
        """Follow who is not ``known``; ``overhead`` and ``memory`` are those of the capture before.

        ``configuration`` is as for `set_policy`, ``subjects`` as for the watchlist.
        """
        self.overhead = overhead or Overhead()
        self._memory = memory or Memory()
        self._runner = runner
        self._model, self._tenant = model, tenant
        self._ledger = ledger
        self._ring = ring
        self._handover = handover
        self._watchlist = Watchlist(
            policy,
            self._count,
            context=context,
            key=key,
            halves=halves,
            canaries=canaries,
            randomized_ids=randomized_ids,
            known=known,
            memory=self._memory,
            configuration=configuration,
            subjects=subjects,
        )
        self._halves = halves
        # Asked for in every step, so only where it can matter.
        self._received = self._memory.received if halves.writes_answers else None
        self._scheduled: Any = None
        self._executed: Any = None
        self._spent_seconds = 0.0

    @property
    def ring(self) -> Ring:
        """Return the ring in use."""
        return self._ring

    @property
    def request_rate(self) -> float:
        """Return the probability with which a request of the uniform stratum is sampled now."""
        return self._watchlist.effective_request_rate

    def set_policy(self, policy: CapturePolicy, configuration: str | None = None) -> None:
        """Decide about later requests by this policy. Safe to call from the sender's thread.

        ``configuration`` is the digest of what this engine runs then.
        """
        self._watchlist.set_policy(policy, configuration)

    def abandon(self) -> Gap:
        """Give up what was begun, after an error: count who is not followed to the end any more.

        Rows that were handed over stay so: their steps were complete.
        """
        known = self._watchlist.abandon(perf_counter())
        gap = Gap(known, self._count_missed, halves=self._halves, received=self._memory.received)
        if self._scheduled is not None:
            gap.note(self._scheduled)
            self._scheduled = self._executed = None
        return gap

    def note_received(self, result: Any) -> None:
        """Remember for whom a KV connector brought something by this step, also while capture is off.

        ``result`` is what ``execute_model`` or ``sample_tokens`` returned.
        """
        if self._received is not None:
            self._received.note(self._runner.received(result), perf_counter())

    def after_execute(self, scheduled: Any, result: Any = None) -> None:
        """Keep what tells of the launched batch until it was sampled.

        ``scheduled`` is vLLM's SchedulerOutput, ``result`` what its execute_model returned. All work waits
        for ``after_sample``: the device has more to do then, and on a CPU the caches that the model has
        just emptied are filled once.
        """
        started = perf_counter()
        if self._scheduled is not None:
            # The last step was never sampled.
            self._follow(self._scheduled)
        self._scheduled = scheduled
        self._executed = self._runner.executed()
        if self._received is not None:
            self._received.note(self._runner.received(result), started)
        if self._executed is None:
            # Nothing was launched, and no sampling follows.
            self._follow(scheduled)
            self._scheduled = None
        self._spent_seconds = perf_counter() - started

    def after_sample(self, result: Any = None) -> None:
        """Gather the wanted rows, now that the sampler has been launched and waits for nothing of ours.

        ``result`` is what vLLM's sample_tokens returned.
        """
        started = perf_counter()
        if self._received is not None:
            self._received.note(self._runner.received(result), started)
        scheduled, executed = self._scheduled, self._executed
        if scheduled is None:
            return
        if scheduled.finished_req_ids or scheduled.scheduled_new_reqs:
            self._follow(scheduled)
        self._scheduled = self._executed = None
        sampled = False
        if self._watchlist.watched:
            drafts = scheduled.scheduled_spec_decode_tokens
            new_tokens = 1 + max(map(len, drafts.values())) if drafts else 1
            if not self._watchlist.can_skip(new_tokens):
                rows = scheduled.total_num_scheduled_tokens
                sampled = self._capture(self._runner.step(executed, rows), scheduled, started)
        self.overhead.observe(self._spent_seconds + perf_counter() - started, sampled=sampled)

    def _follow(self, scheduled: Any) -> None:
        """Take note of requests that came and went."""
        if scheduled.finished_req_ids:
            self._watchlist.forget(scheduled.finished_req_ids)
            if self._received is not None:
                self._received.forget(scheduled.finished_req_ids)
        if scheduled.scheduled_new_reqs:
            if self._received is not None and scheduled.has_sync_kv_loads:
                # Such a connector does not tell for whom it loads in this step.
                self._received.note((new.req_id for new in scheduled.scheduled_new_reqs), perf_counter())
            self._watchlist.add(map(self._new_request, scheduled.scheduled_new_reqs), perf_counter())

    def _new_request(self, new: Any) -> NewRequest:
        """Read what the watchlist needs from vLLM's NewRequestData."""
        params = new.sampling_params
        return NewRequest(
            new.req_id,
            new.prompt_len,
            params.extra_args if params is not None else None,
            new.lora_request is not None,
            new.num_computed_tokens,
            params.max_tokens if params is not None else None,
            len(new.prompt_embeds) if new.prompt_embeds is not None else 0,
            new.prompt_is_token_ids,
            self._received is not None and self._received.take(new.req_id),
            new.prompt_token_ids if new.prompt_embeds is None else None,
        )

    def _capture(self, step: Step, scheduled: Any, now: float) -> bool:
        """Pick rows of the step and hand them over; tell whether there were any."""
        picked = self._watchlist.pick(
            step.request_ids,
            step.row_starts,
            step.first_positions,
            scheduled.scheduled_spec_decode_tokens,
            now,
        )
        if not picked.indices:
            return False
        ring, captured_at = self._ring, time()
        try:
            if step.residual.dtype is not ring.dtype or step.d_model != ring.d_model:
                ring = self._replace_ring(step)
            if len(picked.indices) > ring.rows:
                picked = self._shorten(picked, ring.rows, captured_at)
            run = ring.gather(step, picked.indices)
        except Exception:
            self._drop(picked, captured_at, _ERROR)
            raise
        if run is None:
            self._drop(picked, captured_at, ring.full)
        else:
            self._handover.append(Batch(picked, ring, run, captured_at))
        return True

    def _shorten(self, picked: RowSelection, rows: int, captured_at: float) -> RowSelection:
        self._drop(RowSelection(picked.indices[rows:], picked.wanted[rows:]), captured_at, _QUEUE_FULL)
        return RowSelection(picked.indices[:rows], picked.wanted[:rows])

    def _replace_ring(self, step: Step) -> Ring:
        """Make a ring for what the model really returns; rows in the old one stay readable."""
        layout = self._ring.layout._replace(d_model=step.residual.shape[1], dtype=step.residual.dtype)
        logging.getLogger(LOGGER).info(
            "subtext: the captured block returns %s, not %s", layout, self._ring.layout
        )
        self._ring = open_ring(layout, step.residual.device)
        return self._ring

    def _drop(self, picked: RowSelection, captured_at: float, counter: CounterName) -> None:
        minute = int(captured_at) // SECONDS_PER_MINUTE
        for stratum, count in Counter(watch.stratum for watch, _ in picked.wanted).items():
            cell = Cell(self._model, stratum, minute, self._tenant)
            self._ledger.add(cell, _ROWS_SAMPLED, count)
            self._ledger.add(cell, counter, count)

    def _count_missed(self, counter: CounterName, requests: int) -> None:
        self._count(_UNIFORM, counter, requests)
        self._watchlist.miss(requests)

    def _count(self, stratum: str, counter: CounterName, count: int) -> None:
        minute = int(time()) // SECONDS_PER_MINUTE
        self._ledger.add(Cell(self._model, stratum, minute, self._tenant), counter, count)
