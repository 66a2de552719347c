"""Follows the sampled requests through the engine's steps and picks their rows. Host state only.

No tensor is read here and nothing waits: this runs on the engine's own thread in every step.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final, NamedTuple

from subtext_sidecar.plugin import sampling
from subtext_sidecar.plugin.handover import Row
from subtext_sidecar.plugin.request_id import external_id

# Finished requests are forgotten at once; this only bounds the damage if a finish is ever missed.
MAX_KNOWN_REQUESTS: Final = 100_000

Count = Callable[[str, int], None]


class NewRequest(NamedTuple):
    """A request that the engine schedules for the first time, or again after a preemption."""

    internal_id: str
    prompt_tokens: int


class Picked(NamedTuple):
    """Rows of one step to take: their numbers in the batch, and what is known about each."""

    indices: list[int]
    rows: list[Row]


class _Watch:
    """One sampled request. ``next_position`` only grows, so a position is taken at most once."""

    __slots__ = ("choice", "next_position", "request_id", "stop")

    def __init__(self, request_id: str, choice: sampling.Choice) -> None:
        self.request_id = request_id
        self.choice = choice
        self.next_position = sampling.next_position(choice, 0)
        self.stop = 0  # first position not yet seen


class Watchlist:
    """Remembers each live request: a watch when it is sampled, None when it is not."""

    def __init__(self, policy: sampling.Policy, count: Count, *, randomized_ids: bool = True) -> None:
        self._policy = policy
        self._count = count
        self._randomized_ids = randomized_ids
        self._known: dict[str, None] = {}
        self._watched: dict[str, _Watch] = {}

    def __len__(self) -> int:
        """Return how many live requests are sampled."""
        return len(self._watched)

    def add(self, requests: Iterable[NewRequest]) -> None:
        """Decide about requests that were not known; a resumed request keeps its state."""
        for request in requests:
            if request.internal_id in self._known:
                continue
            self._known[request.internal_id] = None
            if len(self._known) > MAX_KNOWN_REQUESTS:
                self.forget([next(iter(self._known))])
            self._decide(request)

    def forget(self, internal_ids: Iterable[str]) -> None:
        """Drop the state of finished requests."""
        for internal_id in internal_ids:
            self._known.pop(internal_id, None)
            self._watched.pop(internal_id, None)

    def pick(
        self,
        request_ids: Sequence[str],
        row_starts: Sequence[int],
        first_positions: Sequence[int],
        drafted: Collection[str] = (),
    ) -> Picked:
        """Return the rows of this batch to take; see step.Step for the arguments.

        Of a request in ``drafted`` (draft tokens in this step) only the first row counts: the
        others are guesses that may be rejected.
        """
        picked = Picked([], [])
        for number, internal_id in enumerate(request_ids):
            watch = self._watched.get(internal_id)
            if watch is None:
                continue
            first_row = row_starts[number]
            rows = 1 if internal_id in drafted else row_starts[number + 1] - first_row
            start = first_positions[number]
            if watch.next_position < start + rows:
                self._pick_one(watch, first_row, start, start + rows, picked)
            elif watch.next_position == sampling.NEVER:
                self._count_past_cap(watch, start, start + rows)
        return picked

    def _decide(self, request: NewRequest) -> None:
        self._count("requests_seen", 1)
        request_id, skip = external_id(request.internal_id, randomized=self._randomized_ids)
        if skip is not None:
            self._count(f"unobservable_{skip}", 1)
            return
        choice = sampling.choose(self._policy, request_id, request.prompt_tokens)
        if choice is not None:
            self._count("requests_sampled", 1)
            self._watched[request.internal_id] = _Watch(request_id, choice)

    def _pick_one(self, watch: _Watch, first_row: int, start: int, stop: int, picked: Picked) -> None:
        choice, position = watch.choice, watch.next_position
        while position < start:
            # Cached by an earlier request or by a KV connector: never computed, so there is no row.
            self._count("unobservable_prefix_cached", 1)
            position = sampling.next_position(choice, position + 1)
        while position < stop:
            picked.indices.append(first_row + position - start)
            picked.rows.append(
                Row(
                    request_id=watch.request_id,
                    position=position,
                    is_prefill=position < choice.prompt_tokens,
                    probability=sampling.probability_of(choice, position),
                    reason=sampling.reason_of(choice, position),
                )
            )
            position = sampling.next_position(choice, position + 1)
        watch.next_position = position
        watch.stop = max(watch.stop, stop)

    def _count_past_cap(self, watch: _Watch, start: int, stop: int) -> None:
        fresh = stop - max(start, watch.stop, watch.choice.decode_stop)
        if fresh > 0:
            self._count("unobservable_past_row_cap", fresh)
        watch.stop = max(watch.stop, stop)
