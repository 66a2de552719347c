"""What an authority's timestamps say of a log: which tree was there by when. Pure."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from service.evidence.entry import TRANSACTION_TIME, Leaf
from service.evidence.merkle import Frontier
from service.evidence.note import Checkpoint
from service.evidence.timestamp import Authority


class Timestamp(NamedTuple):
    """A note that was timestamped."""

    note: str
    response: bytes
    """What the authority answered, a TimeStampResp in DER."""


class Kept(NamedTuple):
    """All timestamps that were kept of a log, and whom to believe."""

    authority: Authority
    timestamps: Sequence[Timestamp]


class Reach(NamedTuple):
    """How far the timestamps reach that hold."""

    entries: int
    """Of the largest tree that has one."""
    timestamps: int
    first_at: datetime
    last_at: datetime
    lag: timedelta
    """The longest from an entry's own time to the first timestamp that covers it."""


class Misfit(NamedTuple):
    """What the log's entries do not fit."""

    where: str
    why: str


class _Segment(NamedTuple):
    """The entries between two trees that were timestamped, and when the larger one was."""

    size: int
    earliest: datetime | None
    at: datetime


class Timestamps:
    """Checkpoints with the times at which an authority has seen them, held against the leaves."""

    def __init__(self) -> None:
        self._by_size: dict[int, list[tuple[Checkpoint, datetime]]] = {}
        self._earliest: datetime | None = None
        self._latest: datetime | None = None
        self._segments: list[_Segment] = []
        self.other_history: list[Misfit] = []
        self.postdated: list[Misfit] = []

    def add(self, checkpoint: Checkpoint, at: datetime) -> None:
        """Add a checkpoint that was timestamped."""
        self._by_size.setdefault(checkpoint.size, []).append((checkpoint, at))

    def compare(self, leaf: Leaf, frontier: Frontier) -> None:
        """Take the next leaf, which is in the frontier already."""
        self._earliest = leaf.at if self._earliest is None else min(self._earliest, leaf.at)
        self._latest = leaf.at if self._latest is None else max(self._latest, leaf.at)
        for checkpoint, at in self._by_size.pop(frontier.size, ()):
            where = f"entries 0 to {frontier.size - 1}"
            if checkpoint.root != frontier.root():
                why = f"an authority has timestamped another history of them at {at}"
                self.other_history.append(Misfit(where, why))
                continue
            if self._latest > at + TRANSACTION_TIME:
                why = f"one says {self._latest}, and an authority has timestamped it at {at}"
                self.postdated.append(Misfit(where, why))
            self._segments.append(_Segment(frontier.size, self._earliest, at))
            self._earliest = None

    def end(self, size: int) -> Reach | None:
        """Take that there are no more leaves; return how far the timestamps reach, if one holds."""
        for missing in sorted(self._by_size):
            where = f"entries {size} to {missing - 1}"
            self.other_history.append(Misfit(where, "they were timestamped, and the log has them no more"))
        if not self._segments:
            return None
        times = [one.at for one in self._segments]
        covered_at = times[-1]
        lag = timedelta(0)
        # A later tree holds the entries of the earlier ones, too.
        for segment in reversed(self._segments):
            covered_at = min(covered_at, segment.at)
            if segment.earliest is not None:
                lag = max(lag, covered_at - segment.earliest)
        return Reach(self._segments[-1].size, len(times), min(times), max(times), lag)
