"""Dead-letter streams: which letter goes where, and how much of each stream is kept, stated here alone.

There is one for each stream, writer and reason, so that whoever can flood one kind of letter pushes no
other evidence out. Whoever adds a letter bounds its stream right after; the oldest letters go first.

STREAM:dead:WRITER:REASON  h, a, reason, error   fields as in `streams`; both missing ones are empty
"""

from collections.abc import Iterator
from typing import Final

from subtext_sidecar.contract.counters import DeadLetterReason, Hop, RejectReason

MAX_ENTRIES: Final = 1_000  # of each dead-letter stream
MAX_BYTES: Final = 16 << 20  # of each dead-letter stream, as MEMORY USAGE tells them

REASONS: Final = (*RejectReason, *DeadLetterReason)
WRITERS: Final = (Hop.SIDECAR, Hop.WORKER)


def stream_of(stream: str, writer: Hop, reason: str) -> str:
    """Return the name of the stream for a letter; ``stream`` is where its entry came from, or was to go."""
    return f"{stream}:dead:{writer}:{reason}"


def streams_of(stream: str) -> Iterator[tuple[Hop, str, str]]:
    """Yield writer, reason and name of each dead-letter stream that may belong to one stream."""
    for writer in WRITERS:
        for reason in REASONS:
            yield writer, str(reason), stream_of(stream, writer, reason)


def fill_ratio(entries: int, size_bytes: int) -> float:
    """Return how full a stream is: at 1 its bound by entries or by bytes is reached."""
    return max(entries / MAX_ENTRIES, size_bytes / MAX_BYTES)


def entries_kept(entries: int, size_bytes: int) -> int:
    """Return how many of the newest letters stay in a stream that has so many of this size together."""
    by_bytes = entries if size_bytes <= MAX_BYTES else entries * MAX_BYTES // size_bytes
    return min(entries, MAX_ENTRIES, max(1, by_bytes))
