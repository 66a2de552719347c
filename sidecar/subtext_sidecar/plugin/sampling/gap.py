"""Who passes while capture is off: counted, and never taken later for a request that is new."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from subtext_sidecar.contract.counters import CounterName, PluginCounter
from subtext_sidecar.plugin.sampling.split import TRANSFER, EngineHalves, ReceivedPrompts, is_first_half
from subtext_sidecar.plugin.sampling.watchlist import MAX_KNOWN_REQUESTS

_MISSED: Final = PluginCounter.UNOBSERVABLE_CAPTURE_OFF
_MISSED_PROMPT: Final = PluginCounter.UNOBSERVABLE_PREFILL_OFF


class Gap:
    """Requests that live while nobody looks. Belongs to the engine's thread, like the watchlist."""

    def __init__(
        self,
        known: dict[str, int],
        count: Callable[[CounterName, int], None],
        *,
        halves: EngineHalves,
        received: ReceivedPrompts,
    ) -> None:
        """Begin with the requests that were ``known``: the length of each one's prompt.

        ``halves`` tells whether requests pass two engines, of which one counts them. ``received`` are
        prompts that wait for their request to be scheduled.
        """
        self.known = known
        self._count = count
        self._halves = halves
        self._received = received

    def note(self, scheduled: Any) -> None:
        """Follow vLLM's SchedulerOutput. The same one again changes nothing.

        As in the watchlist, a known request with the same prompt was preempted, and one with another prompt
        is the next input of its session.
        """
        known = self.known
        for internal_id in scheduled.finished_req_ids:
            known.pop(internal_id, None)
        self._received.forget(scheduled.finished_req_ids)
        came = prompts = 0
        for new in scheduled.scheduled_new_reqs:
            prompt_tokens = new.prompt_len
            self._received.take(new.req_id)
            if known.get(new.req_id) != prompt_tokens:
                known[new.req_id] = prompt_tokens
                came += 1
                prompts += self._is_first_half(new)
            if len(known) > MAX_KNOWN_REQUESTS:
                del known[next(iter(known))]
        if came > prompts:
            self._count(_MISSED, came - prompts)
        if prompts:
            self._count(_MISSED_PROMPT, prompts)

    def _is_first_half(self, new: Any) -> bool:
        params = new.sampling_params
        if not self._halves.computes_prompts or params is None or not params.extra_args:
            return False
        transfer = params.extra_args.get(TRANSFER)
        return isinstance(transfer, Mapping) and is_first_half(self._halves, transfer, params.max_tokens)
