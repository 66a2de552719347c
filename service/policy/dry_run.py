"""What a proposed policy would have taken of a period's requests, from counts and from what was read. Pure.

The draw of a request is uniform and keyed with a secret that the service does not have, so nobody here can
say which requests a policy takes; how many it takes on average follows exactly from how many came. How many
rows those have does not follow: of a request that was not taken nothing is stored, not even its length. It
is estimated from the requests that were taken:

    rows = requests taken * rows of a taken request (ledger) * how the proposal changes those (readings)

The last factor is 1 where the rules for rows stay as they were. Else it is worked out from the readings of
the random baseline, each with the probability that was stored with it: a row of an answer counts its chance
under the proposal by its chance as it was, and the rows at the end of a prompt follow from the prompt's
length. Where in a long answer the windows grow sparse depends on the engine's context, which is not stored:
of such rows the smallest and the largest chance are both carried.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from subtext_sidecar.contract.counters import PluginCounter, SidecarCounter, Stratum, WorkerCounter
from subtext_sidecar.contract.sampling.policy import CapturePolicy, ScreenPolicy

CONFIDENCE: Final = 0.95
_Z: Final = 1.959963984540054  # of a normal distribution, two-sided 95%
ROW_RULES: Final = ("decode_stride", "window", "prompt_window", "skip_first", "max_rows_per_request")
"""Fields that decide which rows of a taken request are taken."""
_ROOM: Final = 0.8  # part of the budget that the plugin's rate aims at
LEAST_REQUESTS: Final = 20
"""Taken requests below which rows have no estimate: their spread is not known well enough."""

Basis = Literal["exact", "estimate", "bounds"]


class Figure(NamedTuple):
    """A number that is expected, and where the actual one would have been."""

    expected: float | None
    """On average over the draw; None: it cannot be told."""
    lower: float
    upper: float
    basis: Basis
    """`exact`: lower and upper hold whatever the traffic was; `estimate`: about 95 times in 100."""


class Limit(NamedTuple):
    """Something that the figures do not tell."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row that was read."""

    position: int
    is_prompt: bool
    probability: float
    """Of the random baseline, as it was stored."""


class Stay(NamedTuple):
    """One taken request's rows: as they were, and as the proposal would have them at least and at most."""

    rows: int
    least: float
    most: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was counted of one stratum in the period."""

    requests: int = 0
    sampled: int = 0
    rows: int = 0
    decoded: int = 0

    @classmethod
    def of(cls, counters: Mapping[str, int]) -> "Seen":
        """Return it for a stratum's counters, summed over the period."""
        return cls(
            requests=counters.get(PluginCounter.REQUESTS_SEEN, 0),
            sampled=counters.get(PluginCounter.REQUESTS_SAMPLED, 0),
            rows=counters.get(PluginCounter.ROWS_SAMPLED, 0),
            decoded=counters.get(WorkerCounter.ROWS_DECODED, 0),
        )


class Outcome(NamedTuple):
    """One stratum under the proposal."""

    stratum: str
    seen: Seen
    """As it was."""
    candidates: int
    """Requests that would be of this stratum."""
    rate: float
    requests: Figure
    rows: Figure
    decoded: Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What the store holds of the period."""

    seconds: float
    counters: Mapping[str, Mapping[str, int]]
    """By stratum, summed over the period."""
    captures: Sequence[Sequence[Row]]
    """Rows of the random baseline that were read, by request; those of the uniform stratum."""
    row_rules: frozenset[tuple[int, ...]]
    """The rules for rows that were in force at any time, as `row_rules`; empty: none was reported."""
    is_always_known: bool
    """Whether somebody reported a policy all the time."""
    busiest_minute: int = 0
    """Requests that came in the busiest minute."""


class Answer(NamedTuple):
    """The dry run's."""

    outcomes: list[Outcome]
    limits: list[Limit]
    readings: int
    """Requests that were read and whose rows were used; 0: none was needed, or there is none."""


def row_rules(policy: CapturePolicy) -> tuple[int, ...]:
    """Return what decides which rows of a taken request are taken."""
    return tuple(getattr(policy, name) for name in ROW_RULES)


def run(capture: CapturePolicy, screen: ScreenPolicy, past: Past) -> Answer:
    """Return what the two policies would have taken of the past."""
    is_same_rule = past.is_always_known and past.row_rules == {row_rules(capture)}
    stays = [stay for rows in past.captures if (stay := _stay(rows, capture)) is not None]
    per_request = _rows_per_request(past, stays, capture, is_same_rule=is_same_rule)
    outcomes = [
        _outcome(one, capture, screen, past, per_request) for one in _candidates(capture, past.counters)
    ]
    if capture.rows_per_second and _may_bind(capture, past, per_request):
        outcomes = [_within_budget(one, capture.rows_per_second * past.seconds) for one in outcomes]
    limits = list(_limits(capture, screen, past, per_request, is_same_rule=is_same_rule))
    return Answer(outcomes, limits, 0 if is_same_rule else len(stays))


class _Candidates(NamedTuple):
    stratum: str
    requests: int
    rate: float


def _candidates(capture: CapturePolicy, counters: Mapping[str, Mapping[str, int]]) -> list[_Candidates]:
    """Return how many requests would be of which stratum, by what they asked for and now would get."""
    seen = {stratum: Seen.of(of).requests for stratum, of in counters.items()}
    uniform = counters.get(Stratum.UNIFORM, {})
    wished_in = seen.get(Stratum.OPT_IN, 0) + uniform.get(PluginCounter.OPT_IN_NOT_HONOURED, 0)
    wished_out = seen.get(Stratum.OPT_OUT, 0) + uniform.get(PluginCounter.OPT_OUT_NOT_HONOURED, 0)
    traffic = sum(seen.get(one, 0) for one in (Stratum.UNIFORM, Stratum.OPT_IN, Stratum.OPT_OUT))
    opt_in = wished_in if capture.honour_opt_in else 0
    opt_out = wished_out if capture.honour_opt_out else 0
    return [
        _Candidates(Stratum.UNIFORM, max(0, traffic - opt_in - opt_out), capture.request_rate),
        _Candidates(Stratum.OPT_IN, opt_in, 1.0),
        _Candidates(Stratum.OPT_OUT, opt_out, 0.0),
        _Candidates(Stratum.CANARY, seen.get(Stratum.CANARY, 0), 1.0),
    ]


class _PerRequest(NamedTuple):
    """Rows of one taken request; `mean` None: it cannot be told."""

    mean: float | None
    least: float
    most: float
    deviation: float
    """Of one request's rows."""
    error: float
    """Standard error of the mean."""


def _rows_per_request(
    past: Past, stays: Sequence[Stay], capture: CapturePolicy, *, is_same_rule: bool
) -> _PerRequest:
    """Return the rows of a taken request of the uniform stratum under the proposal."""
    seen = Seen.of(past.counters.get(Stratum.UNIFORM, {}))
    cap = float(capture.max_rows_per_request)
    if seen.sampled < LEAST_REQUESTS or len(stays) < LEAST_REQUESTS:
        return _PerRequest(None, 0.0, cap, cap / 2.0, cap / 2.0)
    ledger = seen.rows / seen.sampled
    as_it_was = [float(stay.rows) for stay in stays]
    least = as_it_was if is_same_rule else [stay.least for stay in stays]
    most = as_it_was if is_same_rule else [stay.most for stay in stays]
    total = sum(as_it_was)
    factors = [sum(values) / total for values in (least, most)]
    middle = [(low + high) / 2.0 for low, high in zip(least, most, strict=True)]
    factor = sum(factors) / 2.0
    number = len(stays)
    # Of a ratio of means: what the numerator leaves unexplained by the denominator.
    residual = math.sqrt(
        sum((new - factor * old) ** 2 for new, old in zip(middle, as_it_was, strict=True)) / (number - 1)
    )
    scale = seen.rows / seen.sampled * number / total  # the ledger's rows by those that are stored
    ratio_error = residual / math.sqrt(number) * scale
    spread = _deviation(middle) * scale
    whole = 1.0 - seen.sampled / max(seen.requests, seen.sampled)  # nothing is left to infer from all
    ledger_error = _deviation(as_it_was) * scale * factor * math.sqrt(whole / seen.sampled)
    mean = min(cap, ledger * factor)
    return _PerRequest(
        mean,
        min(cap, ledger * factors[0]),
        min(cap, ledger * factors[1]),
        spread,
        math.hypot(ledger_error, 0.0 if is_same_rule else ratio_error),
    )


def _deviation(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / max(1, len(values) - 1))


def _stay(rows: Sequence[Row], capture: CapturePolicy) -> Stay | None:
    """Return one request's rows under the proposal; None where its prompt's length is not known.

    Of the prompt the last positions are taken whenever the request is, so the last of them tells the
    length, and its probability is the request's.
    """
    prompt = [row for row in rows if row.is_prompt]
    if not prompt:
        return None
    length = max(row.position for row in prompt) + 1
    of_request = max(row.probability for row in prompt)
    taken = max(0, min(capture.prompt_window, length - capture.skip_first))
    dense = _surely_dense(capture)
    least = most = float(taken)
    for row in rows:
        if row.is_prompt or row.position < capture.skip_first:
            continue
        was = min(1.0, row.probability / of_request)
        chance = capture.window / capture.decode_stride / was
        most += chance
        if row.position < length + dense:
            least += chance
    cap = float(capture.max_rows_per_request)
    return Stay(len(rows), min(cap, least), min(cap, most))


def _surely_dense(capture: CapturePolicy) -> int:
    """Return how far into an answer every block has the length of one stride, whatever the context."""
    windows = (capture.max_rows_per_request - capture.prompt_window) // capture.window
    return (windows - max(1, windows // 2)) * capture.decode_stride


def _outcome(
    of: _Candidates, capture: CapturePolicy, screen: ScreenPolicy, past: Past, per_request: _PerRequest
) -> Outcome:
    seen = Seen.of(past.counters.get(of.stratum, {}))
    requests = _requests(of)
    rows = _rows(of, requests, per_request, capture.max_rows_per_request)
    return Outcome(
        of.stratum,
        seen,
        of.requests,
        of.rate,
        requests,
        rows,
        _decoded(of.stratum, rows, screen, past.seconds),
    )


def _requests(of: _Candidates) -> Figure:
    """Return the taken requests: the mean is exact, and the draw's spread is bounded for any traffic."""
    mean = of.requests * of.rate
    if of.rate in {0.0, 1.0} or not of.requests:
        return Figure(mean, mean, mean, "exact")
    # Hoeffding: holds for every number of requests, not in the limit.
    reach = math.sqrt(of.requests * math.log(2.0 / (1.0 - CONFIDENCE)) / 2.0)
    return Figure(mean, max(0.0, mean - reach), min(float(of.requests), mean + reach), "exact")


def _rows(of: _Candidates, requests: Figure, per: _PerRequest, cap: int) -> Figure:
    most = requests.upper * cap
    taken = of.requests * of.rate
    if not taken:
        return Figure(0.0, 0.0, 0.0, "exact")
    if per.mean is None:
        return Figure(None, 0.0, most, "bounds")
    by_draw = of.requests * of.rate * (1.0 - of.rate) * (per.mean**2 + per.deviation**2)
    by_length = of.requests * of.rate**2 * per.deviation**2 if of.stratum != Stratum.UNIFORM else 0.0
    error = _Z * math.sqrt(by_draw + by_length + (taken * per.error) ** 2)
    return Figure(
        taken * per.mean,
        max(0.0, taken * per.least - error),
        min(most, taken * per.most + error),
        "estimate",
    )


def _decoded(stratum: str, rows: Figure, screen: ScreenPolicy, seconds: float) -> Figure:
    """Return the rows that reach the decoder: the baseline's share at least, and all of them at most.

    What the screen adds is not known: a row that it did not pass on is stored nowhere.
    """
    share = 1.0 if stratum == Stratum.CANARY else screen.baseline_rate
    least, most = rows.lower * share, rows.upper
    budget = screen.rows_per_second * seconds if screen.rows_per_second else math.inf
    is_told = rows.expected is not None and (share == 1.0 or screen.anomaly_p_value is None)
    if share != 1.0 and screen.anomaly_p_value is None:
        most = rows.upper * share + _Z * math.sqrt(rows.upper * share)
    expected = rows.expected * share if is_told and rows.expected is not None else None
    if budget < most:
        expected = None if expected is None or expected > budget else expected
        least, most = min(least, budget * screen.baseline_share), min(most, budget)
    basis: Basis = "bounds" if expected is None else rows.basis
    return Figure(expected, least, most, basis)


def _may_bind(capture: CapturePolicy, past: Past, per: _PerRequest) -> bool:
    """Tell whether the busiest minute may have wanted more than the part of the budget that is aimed at."""
    return past.busiest_minute * per.most > _ROOM * capture.rows_per_second * 60.0


def _within_budget(one: Outcome, budget: float) -> Outcome:
    """Return it with no more rows than the budget lets through; the rate gives way, so requests do too."""
    requests = one.requests
    if 0.0 < one.rate < 1.0 or one.stratum == Stratum.UNIFORM:
        requests = Figure(None, 0.0, requests.upper, "bounds")
    return one._replace(
        requests=requests, rows=_capped(one.rows, budget), decoded=_capped(one.decoded, budget)
    )


def _capped(figure: Figure, budget: float) -> Figure:
    if figure.upper <= 0.0:
        return figure
    return Figure(None, 0.0, min(figure.upper, budget), "bounds")


def _limits(
    capture: CapturePolicy, screen: ScreenPolicy, past: Past, per: _PerRequest, *, is_same_rule: bool
) -> Iterable[Limit]:
    uniform = past.counters.get(Stratum.UNIFORM, {})
    yield Limit(
        "which_requests",
        "Which requests would have been taken cannot be told: the draw is keyed with a secret that this "
        "service does not have. A request that is taken at one rate is taken at every higher one, as long "
        "as secret and seed stay.",
    )
    if per.mean is None:
        yield Limit(
            "too_few_readings",
            f"Fewer than {LEAST_REQUESTS} requests of the period were sampled, or are still stored with "
            "the end of their prompt: rows have bounds alone, by max_rows_per_request.",
        )
    elif not is_same_rule:
        yield Limit(
            "other_row_rules",
            "The rules for rows differ from what was in force, changed meanwhile, or were not always "
            "reported. What lies between is estimated from the positions that were read; it takes losses "
            "to strike all positions alike.",
        )
    if capture.rows_per_second:
        yield Limit(
            "budget",
            "rows_per_second lowers the rate from second to second, and refuses rows in a burst. The "
            "ledger counts minutes, so where the budget may bind requests and rows have bounds alone.",
        )
    if screen.anomaly_p_value is not None and screen.baseline_rate < 1.0:
        yield Limit(
            "screen",
            "How many rows the screen would add to the baseline cannot be told: what it did not pass on is "
            f"stored nowhere. In the period it passed {_screened(past.counters)} rows.",
        )
    if capture.honour_trace or uniform.get(PluginCounter.REQUESTS_TRACED, 0):
        yield Limit(
            "traces",
            "Of a request with a trace its own randomness decides, and a sampler before may have chosen "
            "it: the share of those that are taken need not be request_rate.",
        )
    if capture.skip_first < min((rules[3] for rules in past.row_rules), default=capture.skip_first):
        yield Limit(
            "never_looked_at",
            "Positions before the skip_first that was in force were never taken: what the proposal takes "
            "of them is counted at the end of prompts alone.",
        )
    yield Limit(
        "losses",
        "Rows are those that are chosen. What is lost on the way, and what a prefix cache or drafts make "
        "unobservable, comes off them; see coverage.",
    )


def _screened(counters: Mapping[str, Mapping[str, int]]) -> int:
    of_screen = (SidecarCounter.SCREENED_ANOMALY, SidecarCounter.SCREENED_PROBE)
    return sum(of.get(counter, 0) for of in counters.values() for counter in of_screen)
