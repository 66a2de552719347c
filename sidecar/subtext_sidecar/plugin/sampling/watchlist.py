"""Follows the sampled requests through the engine's steps and picks their rows. Host state only.

No tensor is read here and nothing waits: this runs on the engine's own thread in every step, so a
step costs what is due in it and not what is being watched.

Counts requests and positions by stratum, and for rows that the budget refuses both rows_sampled and
dropped_budget: whoever takes the picked rows counts all others.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from operator import sub
from typing import Any, Final, NamedTuple

import msgspec

from subtext_sidecar.contract.counters import CounterName, PluginCounter, Stratum
from subtext_sidecar.contract.facts import RequestFacts
from subtext_sidecar.local.policy import CapturePolicy
from subtext_sidecar.plugin.sampling import rule as sampling
from subtext_sidecar.plugin.sampling.budget import Allowance
from subtext_sidecar.plugin.sampling.canary import CANARY, CanaryGate, without_gate
from subtext_sidecar.plugin.sampling.memory import Memory
from subtext_sidecar.plugin.sampling.request_args import RequestArgs, read_request_args, request_facts
from subtext_sidecar.plugin.sampling.request_id import client_ids, new_capture_id
from subtext_sidecar.plugin.sampling.split import (
    TRANSFER,
    WHOLE,
    EngineHalves,
    Half,
    read_half,
)
from subtext_sidecar.plugin.sampling.subject import NOBODY, SubjectReader, nobody_named
from subtext_sidecar.plugin.sampling.wheel import Wheel
from subtext_sidecar.plugin.secret import DrawKey

# Finished requests are forgotten at once; this only bounds the damage if a finish is ever missed.
MAX_KNOWN_REQUESTS: Final = 100_000

# Read off their class once: this runs in every step.
_UNIFORM: Final = Stratum.UNIFORM
_OPT_IN: Final = Stratum.OPT_IN
_OPT_OUT: Final = Stratum.OPT_OUT
_CANARY: Final = Stratum.CANARY
_SEEN: Final = PluginCounter.REQUESTS_SEEN
_SAMPLED: Final = PluginCounter.REQUESTS_SAMPLED
_PREFILLED: Final = PluginCounter.REQUESTS_PREFILLED
_PREFILLED_SAMPLED: Final = PluginCounter.REQUESTS_PREFILLED_SAMPLED
_REPEATED: Final = PluginCounter.POSITIONS_REPEATED
_DRAFTED: Final = PluginCounter.UNOBSERVABLE_DRAFTED
_INTERRUPTED: Final = PluginCounter.UNOBSERVABLE_INTERRUPTED
_PREFIX_CACHED: Final = PluginCounter.UNOBSERVABLE_PREFIX_CACHED

Count = Callable[[str, CounterName, int], None]


class NewRequest(NamedTuple):
    """A request that the engine schedules for the first time, or again after a preemption.

    A session of streaming inputs keeps one internal id. Each of its inputs is scheduled as a request whose
    prompt is all that came before, computed already, and what is new.
    """

    internal_id: str
    prompt_tokens: int
    extra_args: Mapping[str, Any] | None = None  # of its sampling parameters
    is_adapted: bool = False  # runs with a LoRA adapter
    computed_tokens: int = 0  # of the prompt, that need not be computed any more
    max_tokens: int | None = None  # to generate
    embedded: int = 0  # first positions of the prompt that may come as embeddings and not as tokens
    is_token: Sequence[bool] | None = None  # which of those are tokens all the same; None: none of them
    is_received: bool = False  # a KV connector brought computed tokens, as far as can be told
    prompt: Sequence[int] | None = None  # its token ids; None: embeddings stand for them


class Watch:
    """One sampled request.

    How far it has come, in the positions of its prompt and answer together::

        0 ------------ stop --------- bound ------------------ next_position ----->
          computed for   drafts, or     cannot have come so      the first one that
          certain        steps that     far as a new token       is wanted still
                         nobody read

    ``stop <= bound`` and ``stop <= next_position`` hold at all times. ``next_position`` only grows, so
    a position is taken at most once. ``next_position - bound`` new tokens of anybody must pass before
    the request can be due: that is the time under which it is filed in the wheel.
    """

    __slots__ = (
        "bound",
        "choice",
        "drafted_stop",
        "due",
        "embedded",
        "internal_id",
        "most_rows",
        "next_position",
        "number",
        "randomness",
        "request",
        "stop",
        "stratum",
        "weight",
    )

    def __init__(
        self,
        internal_id: str,
        request: RequestFacts,
        randomness: int,
        choice: sampling.Choice,
        most_rows: int = 0,
    ) -> None:
        self.internal_id = internal_id
        self.request = request
        self.stratum = stratum = request.stratum
        self.randomness = randomness
        self.choice = choice
        self.weight = 1.0 / choice.probability if stratum == _UNIFORM else 0.0
        self.most_rows = most_rows * self.weight  # that can be taken, over all requests for which it stands
        self.next_position = sampling.next_position(choice, 0)
        self.stop = 0  # first position that was not computed yet for certain
        self.embedded: frozenset[int] = frozenset()  # wanted positions without a token
        self.drafted_stop = 0  # first position behind all drafts
        # No position before this one is computed next, as a new one. A prompt can start anywhere
        # in itself, cached by others at any time, but its last token is always computed.
        self.bound = choice.prompt_tokens - 1
        self.due = 0
        self.number = 0  # in the batch, when it was last looked at

    def reach(self, now: int) -> None:
        """Raise ``bound`` to where it can have been at ``now``: preempted, it can be there again."""
        self.bound = max(self.bound, self.next_position + now - self.due)


WatchedPosition = tuple[Watch, int]  # a position of a watched request


class RowSelection(msgspec.Struct, frozen=True):
    """Rows of one step to take: their numbers in the batch, and which position of whom each is.

    What is known about a row besides is worked out by the sender, which is not the engine's thread:
    of a watch it takes only what never changes.
    """

    indices: list[int]
    wanted: list[WatchedPosition]


class _Part(NamedTuple):
    """One watched request's part of a step."""

    first_row: int
    start: int  # position of the first row
    stop: int
    usable_stop: int  # rows at and behind it hold drafts


def _embedded(request: NewRequest, first: int) -> frozenset[int]:
    """Return the positions from ``first`` on that are fed with embeddings.

    The runner's buffers hold some token id there as well: one of whoever had the slot before.
    """
    is_token = request.is_token or ()
    count = len(is_token)
    return frozenset(
        position
        for position in range(first, request.embedded)
        if position >= count or not is_token[position]
    )


def _part(
    watch: Watch,
    start: int,
    number: int,
    row_starts: Sequence[int] | None,
    drafted: Collection[str],
) -> _Part:
    if row_starts is None:
        return _Part(number, start, start + 1, start + 1)
    stop = start + row_starts[number + 1] - row_starts[number]
    return _Part(row_starts[number], start, stop, start + 1 if watch.internal_id in drafted else stop)


class Watchlist:
    """Remembers each live request: a watch when it is sampled, its name alone when it is not."""

    def __init__(
        self,
        policy: CapturePolicy,
        count: Count,
        *,
        context: int,
        key: DrawKey,
        halves: EngineHalves = WHOLE,
        canaries: CanaryGate | None = None,
        randomized_ids: bool = True,
        mint: Callable[[str], str] = new_capture_id,
        unix_time: Callable[[], float] = time.time,
        known: dict[str, int] | None = None,
        memory: Memory | None = None,
        configuration: str | None = None,
        subjects: SubjectReader | None = None,
    ) -> None:
        """Follow requests of at most ``context`` positions, prompt and answer together.

        ``key`` is what the draws are keyed with. ``halves`` tells whether requests pass two engines.
        ``canaries`` knows the operator's canaries; without it there are none. ``subjects`` reads whose data
        a request is; without it nobody is named.
        ``mint`` returns the identity of the request with this internal id; only simulations that must come
        out alike again have one of their own. ``known`` are live requests, by the lengths of their prompts,
        about which nothing is to be decided. ``memory`` is what was learned before; ``unix_time`` is then
        that of it. ``configuration`` is as for `set_policy`.
        """
        self._policy = policy
        self._decided_by = (policy, configuration)
        self._context = context
        self._key = key
        self._halves = halves
        self._canary_args = without_gate if canaries is None else canaries.judge
        self._subject_of = nobody_named if subjects is None else subjects.read
        self._count = count
        self._randomized_ids = randomized_ids
        self._mint = mint
        memory = Memory(unix_time) if memory is None else memory
        self._budget, self._shared_identity = memory.budget, memory.shared_identity
        self._known = {} if known is None else known  # the length of each one's prompt
        self.watched: dict[str, Watch] = {}  # for others to look whether it is empty
        self._wheel: Wheel[Watch] = Wheel()
        self._longest: int | None = None  # of the step that is to be read
        self._due: list[Watch] = []  # who is to be looked at in it

    def __len__(self) -> int:
        """Return how many live requests are sampled."""
        return len(self.watched)

    @property
    def effective_request_rate(self) -> float:
        """Return the request rate that the policy and its budget give now."""
        return self._budget.rate(self._policy)

    def set_policy(self, policy: CapturePolicy, configuration: str | None = None) -> None:
        """Decide about later requests by this policy; the budget counts at once. Any thread may call.

        ``configuration`` is the digest by which their rows name what they were decided by.
        """
        self._policy = policy
        self._decided_by = (policy, configuration)  # both at once: another thread reads them

    def miss(self, requests: int) -> None:
        """Say that requests came, while capture was off, about which nothing was decided."""
        self._budget.miss(requests, self._policy.max_rows_per_request)

    def abandon(self, now: float) -> dict[str, int]:
        """Follow nobody any more, and count who was; return the length of each known one's prompt."""
        self._budget.pause(now)
        for watch in self.watched.values():
            self._count(watch.stratum, _INTERRUPTED, 1)
        self.watched = {}
        return self._known

    def add(self, requests: Iterable[NewRequest], now: float) -> None:
        """Decide about requests that were not known; a resumed request keeps its state.

        One that comes again with a longer prompt is the next input of its session: a request of its own.
        """
        decided_by = self._decided_by
        self._budget.advance(now)
        for request in requests:
            known = self._known.get(request.internal_id)
            if known == request.prompt_tokens:
                continue
            if known is not None:
                self.forget([request.internal_id])
            self._known[request.internal_id] = request.prompt_tokens
            if len(self._known) > MAX_KNOWN_REQUESTS:
                self.forget([next(iter(self._known))])
            try:
                self._decide(*decided_by, request, continues=known is not None)
            except Exception:  # noqa: BLE001  # what one client sends must not end the audit of the others
                self._count(_UNIFORM, PluginCounter.UNOBSERVABLE_UNREADABLE, 1)

    def forget(self, internal_ids: Iterable[str]) -> None:
        """Drop the state of finished requests."""
        if self._longest is not None:
            self._settle()
        for internal_id in internal_ids:
            self._known.pop(internal_id, None)
            watch = self.watched.pop(internal_id, None)
            if watch is not None:
                self._wheel.remove(watch)
                self._budget.end(watch.most_rows)

    def can_skip(self, new_tokens: int) -> bool:
        """Return whether a step in which no request has more new tokens than this cannot hold a wanted row.

        New is what lies behind its prompt and was never computed before: one token and its drafts. The
        length of others' prompts does not matter, or their prefills would make every request look due.

        Ask once a step, and call ``pick`` in that step when the answer is no.
        """
        if self._longest is not None:
            self._settle()
        due = self._wheel.turn(new_tokens)
        if not due:
            return True
        self._due, self._longest = due, new_tokens
        return False

    def pick(
        self,
        request_ids: Sequence[str],
        row_starts: Sequence[int] | None,
        first_positions: Sequence[int],
        drafted: Collection[str],
        now: float,
    ) -> RowSelection:
        """Return the rows of this batch to take; see step.Step for the arguments.

        Of a request in ``drafted`` (draft tokens in this step) only the first row counts: the
        others are guesses that may be rejected.
        """
        longest, due = self._longest, self._due
        if longest is None:
            # Nobody asked whether to read this step; a request has no more new tokens than rows.
            longest = 1 if row_starts is None else max(map(sub, row_starts[1:], row_starts), default=0)
            due = self._wheel.turn(longest)
        self._longest, self._due = None, []
        picked = RowSelection([], [])
        count, numbers = len(request_ids), None
        for watch in due:
            number = watch.number
            if number >= count or request_ids[number] is not watch.internal_id:
                # It is not where it was in the batch when it was last looked at.
                numbers = numbers or dict(zip(request_ids, range(count), strict=False))
                found = numbers.get(watch.internal_id)
                if found is None:
                    # It waits, so it came no nearer.
                    self._wheel.put(watch, watch.due + longest)
                    continue
                number = watch.number = found
            start = first_positions[number]
            if row_starts is None and watch.stop <= start == watch.next_position:
                self._take_one(watch, number, picked)
            else:
                # In the steps that nobody read it may have come further than it stands now.
                watch.reach(self._wheel.now - longest)
                self._visit(watch, _part(watch, start, number, row_starts, drafted), picked)
        return self._within_budget(picked, now) if picked.indices else picked

    def _settle(self) -> None:
        """File those again who were due in a step that was to be read and then was not."""
        for watch in self._due:
            watch.reach(self._wheel.now)
            self._wheel.put(watch, watch.due)
        self._longest, self._due = None, []

    def _decide(
        self, policy: CapturePolicy, configuration: str | None, request: NewRequest, *, continues: bool
    ) -> None:
        said = read_request_args(policy, request.extra_args)
        if request.extra_args and CANARY in request.extra_args:
            token = request.extra_args[CANARY]
            said = self._canary_args(said, token, request.prompt, request.max_tokens)
        half = self._half(request, said.stratum)
        # A request that passes two engines is seen by the one that writes its answer.
        is_prefill = half is not None and half.role == "prefill"
        for counter in (_PREFILLED if is_prefill else _SEEN, *said.counters):
            self._count(said.stratum, counter, 1)
        most_rows = sampling.most_rows(
            policy,
            request.prompt_tokens,
            request.max_tokens,
            self._context,
            role=None if half is None else half.role,
        )
        watch = None
        if said.stratum != _OPT_OUT:
            watch = self._draw(policy, request, said, half, most_rows, configuration=configuration)
        if said.stratum == _UNIFORM:
            self._budget.arrive(most_rows)
        if watch is None:
            return
        self._count(said.stratum, _PREFILLED_SAMPLED if is_prefill else _SAMPLED, 1)
        if request.is_adapted:
            self._count(said.stratum, PluginCounter.REQUESTS_ADAPTED, 1)
        if continues:
            # What was computed is of the inputs before: nothing of it is missing here.
            watch.next_position = sampling.next_position(watch.choice, request.computed_tokens)
        self.watched[request.internal_id] = watch
        self._file(watch)

    def _half(self, request: NewRequest, stratum: Stratum) -> Half | None:
        params = request.extra_args.get(TRANSFER) if request.extra_args else None
        if not params:
            return None
        half = None
        if isinstance(params, Mapping):
            half = read_half(
                self._halves,
                params,
                internal_id=request.internal_id,
                prompt_tokens=request.prompt_tokens,
                computed_tokens=request.computed_tokens,
                is_received=request.is_received,
                max_tokens=request.max_tokens,
            )
        if half is None:
            self._count(stratum, PluginCounter.IGNORED_KV_TRANSFER, 1)
        elif half.role == "decode":
            self._count(stratum, PluginCounter.REQUESTS_CONTINUED, 1)
        return half

    def _identity(self, capture_id: str, half: Half | None, stratum: Stratum) -> str:
        """Return what is drawn by: our own identity, or what both engines of a request know.

        By an id of the client's he could try ids until one is never drawn.
        """
        shared = None if half is None else self._shared_identity.of(half)
        if half is not None and shared is None:
            self._count(stratum, PluginCounter.IGNORED_TRANSFER_ID, 1)
        return shared or capture_id

    def _draw(
        self,
        policy: CapturePolicy,
        request: NewRequest,
        said: RequestArgs,
        half: Half | None,
        most_rows: int,
        *,
        configuration: str | None,
    ) -> Watch | None:
        capture_id = self._mint(request.internal_id)
        identity = self._identity(capture_id, half, said.stratum)
        drawn = sampling.draw(self._key, policy.seed, identity)
        randomness = drawn.randomness if said.randomness is None else said.randomness
        rate = self._budget.rate(policy) if said.stratum == _UNIFORM else 1.0
        threshold = sampling.threshold(rate)
        if randomness < threshold:
            return None
        role = None if half is None else half.role
        choice = sampling.choose(
            policy,
            drawn,
            request.prompt_tokens,
            sampling.probability(threshold),
            self._context,
            role=role,
        )
        ids = client_ids(request.internal_id, randomized=self._randomized_ids)
        subject = NOBODY if said.canary is not None else self._subject_of(request.extra_args)
        if subject.counter is not None:
            self._count(said.stratum, subject.counter, 1)
        facts = request_facts(
            ids,
            said.stratum,
            request.extra_args,
            capture_id,
            role,
            canary=said.canary,
            configuration=configuration,
            subject=subject.key,
        )
        watch = Watch(request.internal_id, facts, randomness, choice, most_rows)
        if request.embedded:
            watch.embedded = _embedded(request, choice.first_position)
        return watch

    def _file(self, watch: Watch) -> None:
        if watch.next_position == sampling.NEVER:
            self.watched.pop(watch.internal_id, None)
            self._budget.end(watch.most_rows)
        else:
            self._wheel.put(watch, self._wheel.now + watch.next_position - watch.bound)

    def _visit(self, watch: Watch, part: _Part, picked: RowSelection) -> None:
        """Take what is wanted of one request's part, count what is missed, and file it again."""
        if part.start < watch.stop:
            self._count(watch.stratum, _REPEATED, min(part.stop, watch.stop) - part.start)
        if watch.next_position < part.start:
            self._count_missed(watch, part.start)
        self._take(watch, part, picked)
        watch.stop = max(watch.stop, part.usable_stop)
        watch.bound = max(watch.bound, part.stop)
        if part.usable_stop < part.stop:
            watch.drafted_stop = part.stop
        self._file(watch)

    def _take_one(self, watch: Watch, row: int, picked: RowSelection) -> None:
        """Do what ``_visit`` does in the usual case: one new token, and it is the wanted one."""
        position = watch.next_position
        picked.indices.append(row)
        picked.wanted.append((watch, position))
        watch.stop = after = position + 1
        if watch.bound < after:  # noqa: PLR1730  # a call costs more, in every step
            watch.bound = after
        watch.next_position = wanted = sampling.next_position(watch.choice, after)
        if wanted == sampling.NEVER:
            self._file(watch)
        else:
            self._wheel.put(watch, self._wheel.now + wanted - watch.bound)

    def _take(self, watch: Watch, part: _Part, picked: RowSelection) -> None:
        position = watch.next_position
        while position < part.usable_stop:
            picked.indices.append(part.first_row + position - part.start)
            picked.wanted.append((watch, position))
            position = sampling.next_position(watch.choice, position + 1)
        watch.next_position = position

    def _count_missed(self, watch: Watch, start: int) -> None:
        """Count wanted positions that were passed over without a row of their own."""
        position = watch.next_position
        while position < start:
            # An accepted draft had no row that was certain to be text. Anything else was cached
            # by an earlier request or by a KV connector and never computed.
            counter = _DRAFTED if position < watch.drafted_stop else _PREFIX_CACHED
            self._count(watch.stratum, counter, 1)
            position = sampling.next_position(watch.choice, position + 1)
        watch.next_position = position

    def _within_budget(self, picked: RowSelection, now: float) -> RowSelection:
        """Return the rows that the budget admits. Without one the demand is watched all the same."""
        weight, opt_in = 0.0, 0
        for watch, _ in picked.wanted:
            weight += watch.weight
            opt_in += not watch.weight
        policy, total = self._policy, len(picked.wanted)
        if opt_in:
            # Canaries are few by their gate, and what they find must not depend on the traffic.
            canaries = sum(watch.stratum == _CANARY for watch, _ in picked.wanted)
            opt_in, total = opt_in - canaries, total - canaries
        self._budget.observe(weight, opt_in)
        if not policy.rows_per_second:
            return picked
        self._budget.advance(now)
        admitted = self._budget.admit(policy, uniform=total - opt_in, opt_in=opt_in, now=now)
        return picked if sum(admitted) == total else self._refuse(picked, admitted)

    def _refuse(self, picked: RowSelection, admitted: Allowance) -> RowSelection:
        """Draw lots: each row of a stratum has the same chance, however long its request is."""
        kept = [number for number, (watch, _) in enumerate(picked.wanted) if watch.stratum == _CANARY]
        for stratum, room in ((_UNIFORM, admitted.uniform), (_OPT_IN, admitted.opt_in)):
            lots = sorted(
                (hash((watch.randomness, position)), number)
                for number, (watch, position) in enumerate(picked.wanted)
                if watch.stratum == stratum
            )
            kept += [number for _, number in lots[:room]]
            if refused := len(lots) - room:
                self._count(stratum, PluginCounter.ROWS_SAMPLED, refused)
                self._count(stratum, PluginCounter.DROPPED_BUDGET, refused)
        kept.sort()
        return RowSelection([picked.indices[n] for n in kept], [picked.wanted[n] for n in kept])
