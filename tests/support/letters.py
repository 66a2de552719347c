"""Dead letters, whatever stream of them they are in."""

from typing import Any

from subtext_sidecar.contract import dead_letters


def letters_of(client: Any, stream: str) -> list[dict[bytes, bytes]]:
    """Return all of one stream's, in the order in which they were written."""
    found: list[tuple[bytes, dict[bytes, bytes]]] = []
    for *_, name in dead_letters.streams_of(stream):
        found += client.xrange(name)
    return [fields for _, fields in sorted(found, key=lambda one: tuple(map(int, one[0].split(b"-"))))]
