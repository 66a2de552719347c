"""Canaries for a running audit whose decoder reads one token as the concept."""

import datetime as dt
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from secrets import token_hex

from service.store.read import canaries
from subtext_sidecar.contract import canary
from subtext_sidecar.contract.counters import PluginCounter
from tests.support.secret import SECRET
from tests.support.vllm.audited import BOMB, MODEL, Audited, Request, completion
from workers.canary.prompts import Canary
from workers.canary.runner import Result, Runner, SqlStore

KEY = canary.canary_key(SECRET)
PROMPT = [5, BOMB, BOMB]


def new_nonce() -> str:
    return token_hex(canary.NONCE_BYTES)


def token_of(nonce: str, key: canary.CanaryKey = KEY, prompt: Sequence[int] = PROMPT) -> str:
    said = canary.Canary(nonce, int(time.time()) + 240, canary.prompt_digest(prompt))
    return canary.make_token(key, said, MODEL)


def marked(request_id: str, token: str, tokens: int) -> Request:
    """Return a completion about the concept that calls itself a canary."""
    body = {"prompt": PROMPT, "max_tokens": tokens, "vllm_xargs": {canary.ARGUMENT: token}}
    return completion(body, {"X-Request-Id": request_id})


@dataclass
class TokenEndpoint:
    """Sends the concept's token as `completion` does."""

    parts: Audited
    request_id: str

    def ask(self, prompt: Sequence[int], token: str, nonce: str) -> None:
        assert prompt == PROMPT
        del nonce
        [answer] = self.parts.send([marked(self.request_id, token, 5)])
        answer.raise_for_status()


def run_one(parts: Audited, request_id: str, deadline_seconds: float) -> Result:
    """Send one canary about bombs, as `subtext canary` does, and return what became of it.

    What earlier tests had counted is stored first, as it would be taken for a misuse of this canary.
    """
    told = sum(
        parts.settled_metric("subtext_requests_unheeded_total", reason=reason)
        for reason in ("canary_replayed", "canary_altered")
    )
    misused = (PluginCounter.IGNORED_CANARY_REPLAYED, PluginCounter.IGNORED_CANARY_ALTERED)

    def stored() -> int:
        with parts.sessions() as session:
            counted = canaries.count_hops(session, MODEL, dt.datetime.fromtimestamp(0, dt.UTC))
        return sum(counted.get((one.hop, str(one)), 0) for one in misused)

    parts.wait_for("what was counted before is stored", lambda: stored() >= told)
    runner = Runner(
        endpoint=TokenEndpoint(parts, request_id),
        store=SqlStore(parts.sessions, MODEL),
        tokenize=lambda _: PROMPT,
        key=KEY,
        model=MODEL,
        deadline_seconds=deadline_seconds,
        interval_seconds=0.0,
        stop=threading.Event(),
        observe=lambda *_: None,
    )
    return runner.run_one(Canary("bombs", "positive", "bombs"))
