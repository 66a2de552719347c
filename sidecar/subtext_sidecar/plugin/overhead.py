"""How much host time the hooks add to each engine step."""

from bisect import bisect_left

from subtext_sidecar.wire import OVERHEAD_BUCKETS_SECONDS


class Overhead:
    """A histogram cheap enough to feed in every step: one bisection and two additions.

    Written by the engine's thread and read by the sender's, without a lock: a reader may miss the
    newest step, which the next heartbeat brings.
    """

    def __init__(self) -> None:
        self.counts = [0] * (len(OVERHEAD_BUCKETS_SECONDS) + 1)
        self.sum_seconds = 0.0

    def observe(self, seconds: float) -> None:
        """Add one step."""
        self.counts[bisect_left(OVERHEAD_BUCKETS_SECONDS, seconds)] += 1
        self.sum_seconds += seconds
