"""Requests that pass two engines: the prompt is computed by one, the answer is written by the other.

vLLM's connectors carry what both engines need in the request's ``kv_transfer_params``. A router writes
them, and so can a client where the router lets him. So they count for nothing unless the operator made
this engine one half of a split, and they decide no more than a draw that their writer cannot foresee:

- A request is the first half only when it may generate one token, so nobody writes whole answers that
  count as seen nowhere; it is the second half only when the connector really brought its prompt.
- An id that both halves know decides once an engine, half and epoch. Who saw that an id is not sampled
  cannot use it again: in the same epoch it is known to be used, in the next the draw is another.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from subtext_sidecar.contract.facts import Role
from subtext_sidecar.contract.request_id import bounded

TRANSFER: Final = "kv_transfer_params"
EPOCH_SECONDS: Final = 600
MAX_USED_IDS: Final = 1 << 17  # a memory of some 15 MB; past it halves draw each by itself
# Requests wait seldom for long behind their transfer. One that is aborted during it ends before it comes,
# so nothing would take it out again.
RECEIVED_SECONDS: Final = 600.0
MAX_RECEIVED: Final = 100_000


class EngineHalves(NamedTuple):
    """Which halves of a split this engine was configured for."""

    computes_prompts: bool = False  # for others
    writes_answers: bool = False  # to prompts of others


WHOLE: Final = EngineHalves()


class Half(NamedTuple):
    """One engine's part of a request."""

    role: Role
    shared_id: str | None  # by which both engines know the request; None: they have nothing in common


def read_half(
    engine: EngineHalves,
    params: Mapping[str, Any],
    *,
    internal_id: str,
    prompt_tokens: int,
    computed_tokens: int,
    is_received: bool,
    max_tokens: int | None,
) -> Half | None:
    """Return which half of a request this is, None when it is a request of this engine alone.

    ``computed_tokens`` of the prompt were there already when it was first scheduled. ``is_received`` tells
    whether the KV connector brought some of them: otherwise they lay in this engine's own prefix cache.
    """
    transfer_id = _text(params.get("transfer_id"))  # of Mooncake and MoRI-IO: the same for both engines
    if params.get("do_remote_decode"):
        # NIXL tells the other engine our own internal id.
        is_ours = is_first_half(engine, params, max_tokens)
        return Half("prefill", transfer_id or internal_id) if is_ours else None
    shared_id = transfer_id or _text(params.get("remote_request_id"))
    # The scheduler has set do_remote_prefill to false by now, so that it transfers but once.
    is_named = shared_id is not None or "do_remote_prefill" in params
    # All but the last token, which is always computed here. A prompt that was not transferred is ours.
    is_transferred = is_received and 0 < prompt_tokens - 1 <= computed_tokens
    return Half("decode", shared_id) if engine.writes_answers and is_named and is_transferred else None


def is_first_half(engine: EngineHalves, params: Mapping[str, Any], max_tokens: int | None) -> bool:
    """Tell whether this engine computes the prompt alone, for another one that counts the request."""
    is_prompt_alone = max_tokens is not None and max_tokens <= 1
    return engine.computes_prompts and is_prompt_alone and bool(params.get("do_remote_decode"))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


class ReceivedPrompts:
    """Remembers for whom a KV connector brought keys and values, until scheduled. Bounded in memory.

    One that waits longer than RECEIVED_SECONDS counts as a request of this engine alone.
    """

    def __init__(self) -> None:
        self._ids: dict[str, float] = {}  # when each came, the oldest first

    def __len__(self) -> int:
        """Return how many are remembered."""
        return len(self._ids)

    def note(self, internal_ids: Iterable[str], now: float) -> None:
        """Remember these requests at ``now``, in seconds; forget those that are old or too many."""
        ids = self._ids
        for internal_id in internal_ids:
            ids.pop(internal_id, None)
            ids[internal_id] = now
            while len(ids) > MAX_RECEIVED or ids[next(iter(ids))] < now - RECEIVED_SECONDS:
                del ids[next(iter(ids))]

    def take(self, internal_id: str) -> bool:
        """Tell whether this request was noted, and forget it."""
        if internal_id not in self._ids:
            return False
        del self._ids[internal_id]
        return True

    def forget(self, internal_ids: Iterable[str]) -> None:
        """Forget requests that have ended."""
        for internal_id in internal_ids:
            self._ids.pop(internal_id, None)


class SharedIdentity:
    """Gives both halves of a request one identity to draw by. Bounded in memory."""

    def __init__(self, unix_time: Callable[[], float]) -> None:
        self._unix_time = unix_time
        self._epoch = -1
        self._used: set[bytes] = set()

    def of(self, half: Half) -> str | None:
        """Return it, or None when the half has none: then its own capture must decide."""
        if half.shared_id is None:
            return None
        epoch = int(self._unix_time()) // EPOCH_SECONDS
        if epoch != self._epoch:
            self._epoch = epoch
            self._used.clear()
        shared_id = bounded(half.shared_id)
        # Of the same size however long the id is.
        use = hashlib.blake2b(f"{half.role}\x00{shared_id}".encode(), digest_size=16).digest()
        if use in self._used or len(self._used) >= MAX_USED_IDS:
            return None
        self._used.add(use)
        # No capture id has a NUL, so this can be none.
        return f"split\x00{epoch}\x00{shared_id}"
