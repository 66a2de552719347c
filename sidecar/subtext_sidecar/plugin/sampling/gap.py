"""Who passes while capture is off: counted, and never taken later for a request that is new."""

from collections.abc import Callable
from typing import Any

from subtext_sidecar.plugin.sampling.watchlist import MAX_KNOWN_REQUESTS


class Gap:
    """Requests that live while nobody looks. Belongs to the engine's thread, like the watchlist."""

    def __init__(self, known: dict[str, int], missed: Callable[[int], None]) -> None:
        """Begin with the requests that were ``known``: the length of each one's prompt.

        ``missed`` is told how many came.
        """
        self.known = known
        self._missed = missed

    def note(self, scheduled: Any) -> None:
        """Follow vLLM's SchedulerOutput. The same one again changes nothing.

        As in the watchlist, a known request with the same prompt was preempted, and one with another prompt
        is the next input of its session.
        """
        known = self.known
        for internal_id in scheduled.finished_req_ids:
            known.pop(internal_id, None)
        came = 0
        for new in scheduled.scheduled_new_reqs:
            prompt_tokens = new.prompt_len
            if known.get(new.req_id) != prompt_tokens:
                known[new.req_id] = prompt_tokens
                came += 1
            if len(known) > MAX_KNOWN_REQUESTS:
                del known[next(iter(known))]
        if came:
            self._missed(came)
