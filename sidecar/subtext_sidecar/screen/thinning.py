"""Which of the received rows go on to the decoder, and with what probability. Pure.

Each request draws one uniform number, the hash of (seed, capture id). The baseline passes a row whose draw
is below ``baseline``; a row that the screen found also passes below ``found``. The rates depend on earlier
arrivals and never on earlier draws, so rates and draws are independent. Sums weighted by the inverse of the
recorded probabilities are therefore unbiased.
"""

import hashlib
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from subtext_sidecar.local.policy import ScreenPolicy

ADAPT_SECONDS: Final = 1.0
_FALL: Final = 0.2  # fraction of the way to a lower arrival rate per step; a higher one applies at once
REPAY_SECONDS: Final = 10.0
_LEAST_BUDGET: Final = 0.1  # smallest share of the budget that remains during repayment

# A separate hash domain: probabilities of plugin and screen are multiplied, so their draws must be
# independent.
_PURPOSE: Final = b"subtext-screen"
_BITS: Final = 53  # what a float holds exactly


class Rates(NamedTuple):
    """Keep rates in [0, 1]: ``baseline`` for all rows, ``found`` >= ``baseline`` for found rows."""

    baseline: float
    found: float


class Arrivals(NamedTuple):
    """Number of rows that arrived."""

    rows: int = 0
    found: int = 0  # by the screen


class PassedRow(NamedTuple):
    """The inclusion probabilities that a passed row's record carries."""

    probability: float
    baseline_probability: float  # 0 when only the screen chose the row


@dataclass(frozen=True, slots=True, kw_only=True)
class Thinning:
    """The rates in force and the state that they derive from."""

    rates: Rates
    rows_per_second: float = 0.0  # expected arrivals
    found_per_second: float = 0.0  # expected arrivals that the screen finds
    owed_rows: float = 0.0  # expected rows passed beyond the budget, less those repaid


def draw(seed: int, capture_id: str) -> float:
    """Return a number in [0, 1), a function of seed and capture alone on every host."""
    digest = hashlib.blake2b(f"{seed}\x00{capture_id}".encode(), digest_size=8, person=_PURPOSE).digest()
    return (int.from_bytes(digest) >> (64 - _BITS)) / (1 << _BITS)


def pass_on(drawn: float, probability: float, rates: Rates, *, is_found: bool) -> PassedRow | None:
    """Return the probabilities of a row that passes, or None.

    ``probability`` is the row's inclusion probability before the screen.
    """
    keep = rates.found if is_found else rates.baseline
    if drawn >= keep:
        return None
    return PassedRow(
        probability=probability * keep,
        baseline_probability=probability * rates.baseline if drawn < rates.baseline else 0.0,
    )


def start(policy: ScreenPolicy) -> Thinning:
    """Return the state before the first arrival."""
    return Thinning(rates=Rates(policy.baseline_rate, 1.0))


def adapt(state: Thinning, policy: ScreenPolicy, arrivals: Arrivals, seconds: float) -> Thinning:
    """Return the state after ``seconds`` with these ``arrivals``.

    Rates lag a surge, so rows beyond the budget become a debt that lower rates repay.
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
    """Return the state under another policy; the debt is forgiven."""
    fresh = replace(state, owed_rows=0.0)
    rates = _rates(policy, fresh.rows_per_second, fresh.found_per_second, policy.rows_per_second)
    return replace(fresh, rates=rates)


def _rates(policy: ScreenPolicy, rows: float, found: float, budget: float) -> Rates:
    """Return the highest rates that the budget (rows per second) allows.

    The baseline's share of the budget is reserved. Found rows have priority on the rest, and ordinary
    rows get the remainder up to the baseline rate.
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
