"""Progress and learning-rate schedule of a training; pure."""

import math

_WARM_UP = 0.03


def run_progress(seen: int, elapsed_minutes: float, *, max_examples: int, max_minutes: float) -> float:
    """Return the used share of the nearer limit; the training ends at 1."""
    return max(seen / max_examples, elapsed_minutes / max_minutes)


def rate_factor(progress: float) -> float:
    """Return the factor on the learning rate: a linear warm-up, then a cosine decay to zero."""
    if progress < _WARM_UP:
        return max(progress / _WARM_UP, 0.05)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - _WARM_UP) / (1 - _WARM_UP))))
