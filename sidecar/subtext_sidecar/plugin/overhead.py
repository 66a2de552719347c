"""How much host time the hooks add to each engine step."""

from bisect import bisect_left

from subtext_sidecar.local.wire import OVERHEAD_BUCKETS_SECONDS, OverheadCounts, Sampled


class _Histogram:
    __slots__ = ("counts", "sum_seconds")

    def __init__(self) -> None:
        self.counts = [0] * (len(OVERHEAD_BUCKETS_SECONDS) + 1)
        self.sum_seconds = 0.0


class Overhead:
    """Two histograms cheap enough to feed in every step: one bisection and two additions.

    Written by the engine's thread and read by the sender's, without a lock: a reader may miss the
    newest step, which the next heartbeat brings.
    """

    def __init__(self) -> None:
        self._none = _Histogram()
        self._some = _Histogram()

    def observe(self, seconds: float, *, sampled: bool) -> None:
        """Add one step; ``sampled`` tells whether any of its rows was taken."""
        histogram = self._some if sampled else self._none
        histogram.counts[bisect_left(OVERHEAD_BUCKETS_SECONDS, seconds)] += 1
        histogram.sum_seconds += seconds

    def read(self) -> dict[Sampled, OverheadCounts]:
        """Return both histograms as they are now."""
        return {"none": _read(self._none), "some": _read(self._some)}


def _read(histogram: _Histogram) -> OverheadCounts:
    return OverheadCounts(counts=tuple(histogram.counts), sum_seconds=histogram.sum_seconds)
