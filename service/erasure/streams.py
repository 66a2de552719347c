"""Delete from the streams of activations, and from their dead letters, what is under an erasure.

An entry that a worker holds already is stored and then erased by the next sweep: an erasure is done only
when sweeps have found nothing for as long as rows are on their way.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, cast

import msgspec
import redis

from service.erasure.target import Target
from subtext_sidecar.contract import streams

_AT_ONCE: Final = 64
"""Entries that are read together; each has up to 128 KiB of a vector."""
_KEYS: Final = f"{streams.OLD_ACTIVATIONS_STREAM}*"
"""The streams of activations, of all models and layers and of before, and their dead letters."""
_UNDECODABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

Fields = Mapping[bytes, bytes]


def sweep(client: redis.Redis, targets: Sequence[Target]) -> dict[Target, int]:
    """Delete every entry that one of the targets is about; return how many for each."""
    deleted = dict.fromkeys(targets, 0)
    for key in client.scan_iter(match=_KEYS, _type="stream"):
        for page in _pages(client, key):
            found = [(entry_id, _of(fields, targets)) for entry_id, fields in page]
            doomed = [entry_id for entry_id, of in found if of]
            if doomed:
                client.xdel(key, *doomed)
            for _, of in found:
                for target in of:
                    deleted[target] += 1
    return deleted


def _pages(client: redis.Redis, key: bytes) -> Iterator[Sequence[tuple[bytes, Fields]]]:
    start = b"-"
    # The client's types are those of its asynchronous twin too.
    while page := cast("list[tuple[bytes, Fields]]", client.xrange(key, start, "+", _AT_ONCE)):
        yield page
        start = b"(" + page[-1][0]


def _of(fields: Fields, targets: Sequence[Target]) -> list[Target]:
    """Return the targets that an entry belongs to."""
    header = _header(fields.get(streams.FIELD_HEADER, b""))
    if header is not None:
        return [one for one in targets if one.is_of(header)]
    # What nobody can read is no evidence, and goes when it may be somebody's.
    texts = b" ".join(value for name, value in fields.items() if name != streams.FIELD_VECTOR)
    return [one for one in targets if one.is_in(texts)]


def _header(encoded: bytes) -> Mapping[str, Any] | None:
    try:
        decoded = msgspec.msgpack.decode(encoded)
    except _UNDECODABLE:
        return None
    return decoded if isinstance(decoded, dict) else None
