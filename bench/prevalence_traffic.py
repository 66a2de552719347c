"""One day of simulated traffic, sampled by the plugin's and the sidecar's production code.

Simulated are the requests, their lengths, their flagged positions and their vectors. Everything from a
request's arrival to the record's probabilities is production code: Watchlist, Block, Screening.
"""

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from service.prevalence.estimate import SampledRows
from subtext_sidecar.anomaly import fit as anomaly_fit
from subtext_sidecar.anomaly.score import Detector, Reference
from subtext_sidecar.contract.counters import CounterName, PluginCounter
from subtext_sidecar.local.block import (
    MAX_ROWS,
    VERSION,
    Block,
    BlockHeader,
    checksums,
    decode_block,
    encode_block,
)
from subtext_sidecar.local.policy import CapturePolicy, ScreenPolicy
from subtext_sidecar.plugin.sampling.watchlist import NewRequest, WatchedPosition, Watchlist
from subtext_sidecar.plugin.secret import key_of
from subtext_sidecar.plugin.transfer.encoding import row_facts
from subtext_sidecar.screen.screening import Screening
from subtext_sidecar.shipper.rows import measure

D_MODEL: Final = 16
SKIPPED_POSITIONS: Final = 10
PROMPT_WINDOW: Final = 2

_KEY: Final = key_of(b"a day comes out alike again only with the same secret")
_MODEL: Final = "simulated"
_LAYER: Final = 1
# Of flagged vectors along the first axis. The screen must find so many of them that its bias outweighs the
# policies' own, which goes the other way: at 10 the two cancel.
_SHIFT: Final = 14.0
# By part of the day, like the capture policies; correlated with the request rates to provoke bias.
_SHARES_OF_EVENT_REQUESTS: Final = (0.15, 0.35, 0.1)
_OPT_IN_SHARE: Final = 0.04
_OPT_OUT_SHARE: Final = 0.04
_TRACED_SHARE: Final = 0.3
_MINUTE_SECONDS: Final = 8  # shortened, because the simulated day is short

_Policy = TypeVar("_Policy")

# Policies for successive parts of the day, with unequal probabilities by design. All honour opt-in, opt-out
# and trace flags, which is the hardest case. The first two have a budget that is never exhausted.
_HONOURED: Final = CapturePolicy(
    max_rows_per_request=400,
    honour_opt_in=True,
    honour_opt_out=True,
    honour_trace=True,
    rows_per_second=1e9,
)
_CAPTURE: Final = (
    replace(_HONOURED, request_rate=0.25, decode_stride=8, window=2),
    replace(_HONOURED, request_rate=0.1, decode_stride=4, window=1),
    replace(_HONOURED, request_rate=0.5, decode_stride=8, window=2, rows_per_second=150.0),
)
_CONTEXT: Final = 4096  # largest number of positions per request
_SCREEN: Final = (
    ScreenPolicy(baseline_rate=0.6, anomaly_p_value=0.05),
    ScreenPolicy(baseline_rate=1.0, anomaly_p_value=0.02, rows_per_second=100.0, baseline_share=0.6),
)


class Request(NamedTuple):
    """One request of the traffic."""

    number: int
    request_id: str
    prompt_tokens: int
    is_flagged: NDArray[np.bool_]
    """(prompt tokens + generated tokens,)."""
    extra_args: dict[str, str]

    @property
    def eligible(self) -> slice:
        """Positions that can be sampled: the prompt's end and all generated tokens."""
        return slice(max(SKIPPED_POSITIONS, self.prompt_tokens - PROMPT_WINDOW), len(self.is_flagged))


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """The truth about one day's traffic, and the samples of it."""

    flagged: int
    """Number of flagged positions among the eligible ones."""
    eligible: int
    """Number of eligible positions of requests that did not opt out."""
    all_rows: SampledRows
    """Every passed row, with its total inclusion probability."""
    baseline_rows: SampledRows
    """Rows that the baseline passed, with the baseline's probability."""
    counts: Counter[str]

    @property
    def prevalence(self) -> float:
        """The true prevalence."""
        return self.flagged / self.eligible


class _Cell(NamedTuple):
    """Stratum and minute, the resolution at which losses are known."""

    stratum: str
    minute: int


class _PassedRows(NamedTuple):
    """Rows that the screen passed, as columns."""

    request: NDArray[np.int64]
    probability: NDArray[np.float64]
    baseline_probability: NDArray[np.float64]
    is_flagged: NDArray[np.bool_]
    cell: NDArray[np.int64]  # index into the day's cells


def _identity(internal_id: str) -> str:
    """Return a deterministic capture id in place of the plugin's random one, for reproducible days."""
    return hashlib.blake2b(internal_id.encode(), digest_size=16).hexdigest()


class _Day:
    """Runs the sampling code over one day and keeps its counts."""

    def __init__(self, reference: Reference, random: np.random.Generator) -> None:
        self.counts: Counter[str] = Counter()
        self.picked: Counter[_Cell] = Counter()
        self.refused: Counter[_Cell] = Counter()
        self.cells: dict[_Cell, int] = {}
        self.passed: list[_PassedRows] = []
        self._random = random
        self._minute = 0
        self._watchlist = Watchlist(_CAPTURE[0], self._count, context=_CONTEXT, key=_KEY, mint=_identity)
        self._screening = Screening(Detector(reference), _SCREEN[0], 0.0)

    def follow(self, capture: CapturePolicy, screen: ScreenPolicy) -> None:
        self._watchlist.set_policy(capture)
        self._screening.set_policy(screen)

    def serve(self, requests: Sequence[Request], now: float) -> None:
        """Process requests from arrival to end, in one engine step."""
        self._minute = int(now) // _MINUTE_SECONDS
        ids = [f"{one.request_id}-00000000" for one in requests]
        self._watchlist.add(
            [
                NewRequest(internal_id, one.prompt_tokens, one.extra_args)
                for internal_id, one in zip(ids, requests, strict=True)
            ],
            now,
        )
        starts = [0, *itertools.accumulate(len(one.is_flagged) for one in requests)]
        picked = self._watchlist.pick(ids, starts, [0] * len(ids), {}, now)
        self._watchlist.forget(ids)
        self._screening.adapt(now)
        flags = np.concatenate([one.is_flagged for one in requests])[picked.indices]
        numbers = {one.request_id: one.number for one in requests}
        for first in range(0, len(picked.wanted), MAX_ROWS):
            part = slice(first, first + MAX_ROWS)
            self._screen(picked.wanted[part], flags[part], numbers)

    def joined(self) -> _PassedRows:
        """Return all passed rows."""
        return _PassedRows(*(np.concatenate(columns) for columns in zip(*self.passed, strict=True)))

    def _screen(
        self, positions: Sequence[WatchedPosition], flags: NDArray[np.bool_], numbers: dict[str, int]
    ) -> None:
        self.picked.update(_Cell(watch.stratum, self._minute) for watch, _ in positions)
        outcome = self._screening.take(measure(_block(positions, _vectors(self._random, flags))))
        for (stratum, counter), count in outcome.counts.items():
            self.counts[f"{stratum}.{counter}"] += count
        kept = [positions[one.row][0] for one in outcome.kept]
        self.passed.append(
            _PassedRows(
                request=np.array([numbers[watch.request.request_id] for watch in kept], np.int64),
                probability=np.array([one.probability for one in outcome.kept]),
                baseline_probability=np.array([one.baseline_probability for one in outcome.kept]),
                is_flagged=flags[[one.row for one in outcome.kept]],
                cell=np.array([self._cell(watch.stratum) for watch in kept], np.int64),
            )
        )

    def _cell(self, stratum: str) -> int:
        return self.cells.setdefault(_Cell(stratum, self._minute), len(self.cells))

    def _count(self, stratum: str, counter: CounterName, count: int) -> None:
        self.counts[f"{stratum}.{counter}"] += count
        if counter is PluginCounter.DROPPED_BUDGET:
            self.refused[_Cell(stratum, self._minute)] += count


def fit_reference() -> Reference:
    """Fit the detector's reference on benign vectors."""
    vectors = _vectors(np.random.default_rng(0), np.zeros(4000, bool))
    documents = np.arange(4000) // 8
    return anomaly_fit.fit(
        vectors, documents, model=_MODEL, layer=_LAYER, p_value=0.02, components=8
    ).reference


def simulate(
    reference: Reference,
    seed: int,
    *,
    seconds: int = 30,
    requests_per_second: float = 80.0,
    loss: float = 0.1,
) -> Day:
    """Simulate one day; ``loss`` is the share of passed rows that are lost at random."""
    random = np.random.default_rng(seed)
    day = _Day(reference, random)
    flagged = eligible = first = 0
    for second in range(seconds):
        day.follow(_of_now(_CAPTURE, second, seconds), _of_now(_SCREEN, second, seconds))
        share = _of_now(_SHARES_OF_EVENT_REQUESTS, second, seconds)
        requests = list(_requests(random, seed, first, int(random.poisson(requests_per_second)), share))
        first += len(requests)
        day.serve(requests, float(second))
        for one in requests:
            if one.extra_args.get("subtext") != "off":
                flagged += int(one.is_flagged[one.eligible].sum())
                eligible += len(one.is_flagged[one.eligible])
    passed = day.joined()
    is_kept = random.random(len(passed.cell)) >= loss
    retained = _retained(day, passed, is_kept)
    return Day(
        flagged=flagged,
        eligible=eligible,
        all_rows=_sampled(passed, passed.probability, is_kept, retained),
        baseline_rows=_sampled(passed, passed.baseline_probability, is_kept, retained),
        counts=day.counts,
    )


def _of_now(policies: Sequence[_Policy], second: int, seconds: int) -> _Policy:
    return policies[second * len(policies) // seconds]


def _requests(
    random: np.random.Generator, seed: int, first: int, count: int, share: float
) -> Iterator[Request]:
    is_event = random.random(count) < share
    # Event requests are longer and have more flags, so cluster size is informative.
    shares = np.where(is_event, random.beta(2.0, 4.0, count), random.beta(0.5, 40.0, count))
    generated = np.minimum(300, random.geometric(np.where(is_event, 1 / 40, 1 / 24)))
    prompts = random.integers(12, 60, count)
    wishes = random.random(count)
    traces = random.integers(1, 1 << 63, (count, 2))
    for n in range(count):
        extra_args = {}
        if wishes[n] < _OPT_IN_SHARE:
            extra_args["subtext"] = "on"
        elif wishes[n] < _OPT_IN_SHARE + _OPT_OUT_SHARE:
            extra_args["subtext"] = "off"
        elif wishes[n] < _OPT_IN_SHARE + _OPT_OUT_SHARE + _TRACED_SHARE:
            extra_args["traceparent"] = f"00-{traces[n, 0]:016x}{traces[n, 1]:016x}-00000000000000aa-01"
        tokens = int(prompts[n] + generated[n])
        yield Request(
            number=first + n,
            request_id=f"day{seed}-{first + n}",
            prompt_tokens=int(prompts[n]),
            is_flagged=random.random(tokens) < shares[n],
            extra_args=extra_args,
        )


def _vectors(random: np.random.Generator, is_flagged: NDArray[np.bool_]) -> NDArray[np.float32]:
    vectors = random.normal(1.0, 1.0, (len(is_flagged), D_MODEL)).astype(np.float32)
    vectors[is_flagged, 0] += _SHIFT
    return vectors


def _block(positions: Sequence[WatchedPosition], vectors: NDArray[np.float32]) -> Block:
    requests = list(dict.fromkeys(watch.request for watch, _ in positions))
    numbers = {request: number for number, request in enumerate(requests)}
    content = vectors.tobytes()
    header = BlockHeader(
        v=VERSION,
        model=_MODEL,
        layer=_LAYER,
        dtype="float32",
        d_model=D_MODEL,
        captured_at=0.0,
        requests=requests,
        request=[numbers[watch.request] for watch, _ in positions],
        rows=[
            row_facts(watch.choice, position, 0, checksum)
            for (watch, position), checksum in zip(
                positions, checksums(content, len(positions)), strict=True
            )
        ],
    )
    return decode_block(encode_block(header), content)


def _retained(day: _Day, passed: _PassedRows, is_kept: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the share of sampled rows per cell that neither the budget refused nor transport lost."""
    shape = len(day.cells)
    on_the_way = np.bincount(passed.cell[is_kept], minlength=shape) / np.bincount(
        passed.cell, minlength=shape
    )
    at_the_budget = [day.picked[cell] / (day.picked[cell] + day.refused[cell]) for cell in day.cells]
    return np.asarray(on_the_way * at_the_budget, np.float64)


def _sampled(
    passed: _PassedRows,
    probability: NDArray[np.float64],
    is_kept: NDArray[np.bool_],
    retained: NDArray[np.float64],
) -> SampledRows:
    chosen = is_kept & (probability > 0.0)
    return SampledRows(
        request=passed.request[chosen],
        probability=probability[chosen],
        is_flagged=passed.is_flagged[chosen],
        retained=retained[passed.cell[chosen]],
    )
