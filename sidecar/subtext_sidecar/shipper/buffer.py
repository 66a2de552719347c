"""Records that wait for Redis, bounded by bytes. Pure."""

from collections import deque
from itertools import islice
from typing import NamedTuple

from subtext_sidecar.local.ledger import Cell


class Entry(NamedTuple):
    """One valid record, as it goes into the stream, and what it is counted under."""

    stream: str
    """Where it goes."""
    header: bytes
    vector: bytes
    cell: Cell
    size: int
    """Payload in bytes."""


class Buffer:
    """First in, first out. What does not fit is refused: the oldest are the nearest to being shipped."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._entries: deque[Entry] = deque()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, entry: Entry) -> bool:
        """Add an entry; False when it does not fit."""
        size_bytes = self.size_bytes + entry.size
        if size_bytes > self._limit_bytes:
            return False
        self._entries.append(entry)
        self.size_bytes = size_bytes
        return True

    def oldest(self, count: int) -> list[Entry]:
        """Return the oldest entries without removing them."""
        return list(islice(self._entries, count))

    def remove(self, count: int) -> None:
        """Remove the oldest ``count`` entries, once they are shipped."""
        for _ in range(count):
            self.size_bytes -= self._entries.popleft().size
