"""How far a training is and what its learning rate is there; pure."""

import math

_WARM_UP = 0.03


def run_progress(seen: int, elapsed_minutes: float, *, max_examples: int, max_minutes: float) -> float:
    """Return the share of the budget that is used, by whichever limit is nearer; 1 ends the run."""
    return max(seen / max_examples, elapsed_minutes / max_minutes)


def rate_factor(progress: float) -> float:
    """Return the learning rate's factor: a short linear warm-up, then a cosine to zero."""
    if progress < _WARM_UP:
        return max(progress / _WARM_UP, 0.05)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - _WARM_UP) / (1 - _WARM_UP))))
