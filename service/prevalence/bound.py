"""A lower bound of a share that stays valid however often one looks. Pure.

The method is betting (Waudby-Smith and Ramdas 2023, "Estimating means of bounded random variables by
betting"), on importance-weighted outcomes (Waudby-Smith et al. 2024, "Anytime-valid off-policy inference
for contextual bandits"). Against the claim that the share is at most m, a gambler stakes part of his wealth
on every request: the wealth is multiplied by 1 + b (f - m) / q, where f is 1 for a flagged request and else
0, and q is the probability with which the request came to be judged. If the claim is true, no factor has an
expectation above 1, so the wealth exceeds 1 / error with a probability of at most ``error`` at all times
together (Ville's inequality). The bound is the smallest m of which the wealth does not exceed that.

Weights 1 / q are not bounded by a constant, so the stake bounds the factor: b = min(s, L q) / m with L < 1,
which keeps every factor above 1 - L. That stake is known before the outcome. The wealth is the mean over
a fixed grid of s, from requests of the largest weight to those of the smallest. No stake depends on an
outcome, so the wealth depends neither on the order of the requests nor on how they are grouped.
"""

import math
from typing import Final

import numpy as np

from service.prevalence.estimate import CONFIDENCE, SampledRequests

_LARGEST_STAKE: Final = 0.75
_STAKES: Final = _LARGEST_STAKE * 0.5 ** np.arange(24)  # down to probabilities of 1 in 10,000,000
_SMALLEST_SHARE: Final = 1e-12
_STEPS: Final = 50  # of bisection, each of which halves the logarithm's range


def log_wealth(requests: SampledRequests, share: float) -> float:
    """Return the logarithm of the wealth against the claim that the share is at most this; in (0, 1)."""
    return _Gambler(requests).log_wealth(share)


def anytime_lower(requests: SampledRequests, confidence: float = CONFIDENCE) -> float:
    """Return the one-sided lower bound of the share, in [0, 1).

    With probability ``confidence`` it never exceeds the share at any time at which it is worked out over
    the requests from one fixed start on. Of a share that changes meanwhile it never exceeds the highest
    value.
    """
    if not (requests.count @ requests.is_flagged):
        return 0.0
    gambler, enough = _Gambler(requests), -math.log1p(-confidence)
    low, high = math.log(_SMALLEST_SHARE), 0.0
    for _ in range(_STEPS):
        middle = (low + high) / 2.0
        if gambler.log_wealth(math.exp(middle)) > enough:
            low = middle
        else:
            high = middle
    return math.exp(low) if low > math.log(_SMALLEST_SHARE) else 0.0


class _Gambler:
    """What each stake of the grid lost on unflagged requests, and what it had at stake on flagged ones."""

    def __init__(self, requests: SampledRequests) -> None:
        staked = np.minimum(_STAKES * requests.weights[:, None], _LARGEST_STAKE)  # (n, stakes)
        self._losses = (requests.count * ~requests.is_flagged) @ np.log1p(-staked)
        self._flagged = requests.count[requests.is_flagged]
        self._staked = staked[requests.is_flagged]

    def log_wealth(self, share: float) -> float:
        gains = self._flagged @ np.log1p(self._staked * (1.0 - share) / share)
        return float(np.logaddexp.reduce(gains + self._losses) - math.log(len(_STAKES)))
