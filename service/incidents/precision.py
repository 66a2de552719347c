"""Measured precision: the share of labelled flags that people confirmed, with an exact interval. Pure."""

from typing import Final, NamedTuple

from scipy import special  # type: ignore[import-untyped]  # no types upstream

CONFIDENCE: Final = 0.95


class Precision(NamedTuple):
    """A share of labelled flags with its interval."""

    estimate: float
    lower: float
    upper: float


def measure(confirmed: int, dismissed: int) -> Precision | None:
    """Return the share of ``confirmed`` among both; None without any label.

    The interval is that of Clopper and Pearson (1934), which covers the true share with at least
    `CONFIDENCE` for every number of labels. It holds for the flags that were labelled: when people look at
    some flags rather than at others, it says nothing of the rest.
    """
    labelled = confirmed + dismissed
    if not labelled:
        return None
    tail = (1 - CONFIDENCE) / 2
    lower = special.betaincinv(confirmed, dismissed + 1, tail) if confirmed else 0.0
    upper = special.betaincinv(confirmed + 1, dismissed, 1 - tail) if dismissed else 1.0
    return Precision(confirmed / labelled, float(lower), float(upper))
