"""Which requests are canaries of the operator's: proved by his secret, once each, few and short.

A canary is left out of every statistic, so whoever learns of a token must gain little by it: it is good
once, for its own prompt and a short answer, for minutes, and only so many are let in. What is none is drawn
like any other request, and counted.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from subtext_sidecar.contract.canary import ARGUMENT, CanaryKey, prompt_digest, read_token
from subtext_sidecar.contract.counters import PluginCounter, Stratum
from subtext_sidecar.plugin.sampling.request_args import RequestArgs

CANARY: Final = ARGUMENT
MAX_PER_MINUTE: Final = 10
MAX_PROMPT_TOKENS: Final = 1024
MAX_ANSWER_TOKENS: Final = 64
_SECONDS: Final = 60.0


def without_gate(said: RequestArgs, *_: object) -> RequestArgs:
    """Return that a request which calls itself a canary is none, where there are none."""
    return _refused(said, PluginCounter.IGNORED_CANARY)


class CanaryGate:
    """Lets canaries in. It outlives a capture that is begun anew, so that no token is good twice."""

    def __init__(self, key: CanaryKey, model: str, unix_time: Callable[[], float] = time.time) -> None:
        """``model`` is the name on the records."""
        self._key = key
        self._model = model
        self._unix_time = unix_time
        self._used: dict[str, int] = {}  # when each ends, by nonce; at most those let in within a lifetime
        self._times: deque[float] = deque(maxlen=MAX_PER_MINUTE)

    def judge(
        self, said: RequestArgs, token: object, prompt: Sequence[int] | None, max_tokens: int | None
    ) -> RequestArgs:
        """Return the arguments of a canary, or ``said`` with the counter of why it is none.

        ``prompt`` is its token ids; None where embeddings stand for them, which no canary has.
        """
        now = self._unix_time()
        canary = read_token(self._key, token, self._model, now)
        if canary is None:
            return _refused(said, PluginCounter.IGNORED_CANARY)
        self._used = {nonce: ends_at for nonce, ends_at in self._used.items() if now < ends_at}
        if canary.nonce in self._used:
            return _refused(said, PluginCounter.IGNORED_CANARY_REPLAYED)
        if max_tokens is None or max_tokens > MAX_ANSWER_TOKENS or len(prompt or ()) > MAX_PROMPT_TOKENS:
            return _refused(said, PluginCounter.IGNORED_CANARY_EXCESS)
        # Only a short prompt is hashed, so that no token makes the engine wait.
        if prompt is None or prompt_digest(prompt) != canary.prompt:
            return _refused(said, PluginCounter.IGNORED_CANARY_ALTERED)
        if not self._has_room(now):
            return _refused(said, PluginCounter.IGNORED_CANARY_EXCESS)
        self._used[canary.nonce] = canary.ends_at
        self._times.append(now)
        return RequestArgs(Stratum.CANARY, None, (), canary.nonce)

    def _has_room(self, now: float) -> bool:
        # A clock that was set back must not keep canaries out for longer than a minute.
        return len(self._times) < MAX_PER_MINUTE or not 0.0 <= now - self._times[0] < _SECONDS


def _refused(said: RequestArgs, counter: PluginCounter) -> RequestArgs:
    return said._replace(counters=(*said.counters, counter))
