"""Which of the received rows go on to the decoder, and with what probability. Pure.

Each request draws one uniform number by the hash of (seed, capture id). The baseline passes a row
when the draw is below ``baseline``; a row that the screen found also passes below ``found``. The
rates in force depend on what arrived before, never on what was passed, so they say nothing about
the draws that they are compared with: dividing by the recorded probabilities gives unbiased sums.
"""

import hashlib
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from subtext_sidecar.local.policy import ScreenPolicy

ADAPT_SECONDS: Final = 1.0
_FALL: Final = 0.2  # of the way to a lower rate in one step; a higher one is taken over at once
REPAY_SECONDS: Final = 10.0
_LEAST_BUDGET: Final = 0.1  # share of the budget that is left while a surge is paid back

# Apart from every other hash of capture ids, above all from the plugin's: decisions that are
# multiplied must be independent.
_PURPOSE: Final = b"subtext-screen"
_BITS: Final = 53  # what a float holds exactly


class Rates(NamedTuple):
    """Keep rates: every row passes below ``baseline``, a found one below ``found``, never the lower."""

    baseline: float
    found: float


class Arrivals(NamedTuple):
    """Rows that arrived."""

    rows: int = 0
    found: int = 0


class PassedRow(NamedTuple):
    """What the record of a row that goes on must say."""

    probability: float
    baseline_probability: float  # 0: only the screen chose it


@dataclass(frozen=True, slots=True, kw_only=True)
class Thinning:
    """The rates in force and what they were derived from."""

    rates: Rates
    rows_per_second: float = 0.0  # expected to arrive
    found_per_second: float = 0.0  # of them, expected to be found
    owed_rows: float = 0.0  # expected to have passed beyond the budget, and not paid back yet


def draw(seed: int, capture_id: str) -> float:
    """Return a number from [0, 1): the same for the same seed and request, always and on every host."""
    digest = hashlib.blake2b(f"{seed}\x00{capture_id}".encode(), digest_size=8, person=_PURPOSE).digest()
    return (int.from_bytes(digest) >> (64 - _BITS)) / (1 << _BITS)


def pass_on(drawn: float, probability: float, rates: Rates, *, is_found: bool) -> PassedRow | None:
    """Return the probabilities of a row that passes, None for one that does not.

    ``probability`` is that with which the row got here.
    """
    keep = rates.found if is_found else rates.baseline
    if drawn >= keep:
        return None
    return PassedRow(
        probability=probability * keep,
        baseline_probability=probability * rates.baseline if drawn < rates.baseline else 0.0,
    )


def start(policy: ScreenPolicy) -> Thinning:
    """Return the state before anything arrived."""
    return Thinning(rates=Rates(policy.baseline_rate, 1.0))


def adapt(state: Thinning, policy: ScreenPolicy, arrivals: Arrivals, seconds: float) -> Thinning:
    """Return the state after ``seconds`` in which ``arrivals`` came.

    A surge is felt only after it came, so what passed beyond the budget is owed and paid back.
    """
    rows = _follow(state.rows_per_second, arrivals.rows / seconds)
    found = min(rows, _follow(state.found_per_second, arrivals.found / seconds))
    budget = policy.rows_per_second
    spent = _expected(state.rates, arrivals)
    owed = max(0.0, state.owed_rows + spent - budget * seconds) if budget else 0.0
    left = max(_LEAST_BUDGET * budget, budget - owed / REPAY_SECONDS)
    return Thinning(
        rates=_rates(policy, rows, found, left),
        rows_per_second=rows,
        found_per_second=found,
        owed_rows=owed,
    )


def follow_policy(state: Thinning, policy: ScreenPolicy) -> Thinning:
    """Return the state under another policy, at once."""
    fresh = replace(state, owed_rows=0.0)
    rates = _rates(policy, fresh.rows_per_second, fresh.found_per_second, policy.rows_per_second)
    return replace(fresh, rates=rates)


def _rates(policy: ScreenPolicy, rows: float, found: float, budget: float) -> Rates:
    """Return the highest rates that the budget allows.

    Found rows come first, but not into the baseline's own share of the budget; what they leave is
    the baseline's, up to its rate.
    """
    ordinary = rows - found
    if not policy.rows_per_second or found + policy.baseline_rate * ordinary <= budget:
        return Rates(policy.baseline_rate, 1.0)
    reserved = min(policy.baseline_rate, policy.baseline_share * budget / rows)
    if ordinary and (left_over := (budget - found) / ordinary) >= reserved:
        return Rates(left_over, 1.0)
    return Rates(reserved, max(reserved, (budget - reserved * ordinary) / found))


def _expected(rates: Rates, arrivals: Arrivals) -> float:
    return rates.baseline * (arrivals.rows - arrivals.found) + rates.found * arrivals.found


def _follow(known: float, seen: float) -> float:
    return seen if seen >= known else known + _FALL * (seen - known)
