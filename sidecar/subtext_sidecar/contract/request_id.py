"""Request ids as clients choose them: cleaned, bounded, and the forms under which one is looked up. Pure.

A client's id is an attribute to look up by and never an identity: two requests may share it, it may
have any length, and it may imitate what vLLM adds to others. vLLM passes it on with additions of its
own, ``[{sample}_]{endpoint}-{id}[-{prompt}|_{turn}|-{random}-beam-{beam}]``, which cannot be told from an
id that a client wrote like that. So a request has several forms, one for each way to read it, and is
found by each.
"""

import hashlib
import re
from typing import Final, NamedTuple

MAX_BYTES: Final = 256
MAX_FORMS: Final = 8
# Nothing behind so many characters is looked at: ids of megabytes must cost no more than short ones.
_READ_CHARACTERS: Final = 4096
_DIGEST_BYTES: Final = 16
_HEAD_BYTES: Final = MAX_BYTES - 2 * _DIGEST_BYTES - 1
_MARK: Final = "~"  # between the head of a long id and its digest
NAMELESS: Final = "-"  # stands for an id of which nothing readable is left

_CHARACTERS: Final = r"\x20-\x7e\xa0-\ud7ff\ue000-\ufdcf\ufdf0-\ufffd\U00010000-\U0010ffff"
_READABLE: Final = re.compile(f"[{_CHARACTERS}]+")
_UNREADABLE: Final = re.compile(f"[^{_CHARACTERS}]")
# vLLM's counters have few digits; an id of thousands is a client's.
_SAMPLE: Final = re.compile(r"\d{1,6}_")
_ENDPOINT: Final = re.compile(r"chatcmpl-|cmpl-|generate-tokens-|decision-|generative-scoring-|rt-")
# vLLM has had random ids of 32 digits, and has those of 16.
_BEAM: Final = re.compile(r"-(?:[0-9a-f]{16}){1,2}-beam-\d{1,6}\Z")
_NUMBER: Final = re.compile(r"[-_]\d{1,6}\Z")
# No addition at an id's end is longer, so nothing before it is searched for one.
_LONGEST_END: Final = 64


class _Part(NamedTuple):
    """What is left of an id when additions are taken off its ends; nothing is copied until it is stored."""

    start: int
    stop: int


class _Head(NamedTuple):
    """What is read of an id; its parts that begin alike share it."""

    raw: bytes
    readable: str  # the first _HEAD_BYTES of it
    is_readable: bool  # all of it


def bounded(text: str) -> str:
    """Return the id as it is stored: readable, not empty, at most MAX_BYTES of UTF-8.

    What is longer, or holds control characters or lone surrogates, keeps its readable beginning and
    gets a digest, so that two such ids stay apart. The same id always becomes the same text.
    """
    return _bounded(text, _Part(0, len(text)), {})


def forms(external: str) -> tuple[str, ...]:
    """Return how the request can be looked up, bounded and distinct, with the likeliest form first.

    ``external`` is the id that vLLM was given, without the random digits that it adds itself.
    """
    parts = dict.fromkeys((_likeliest(external), *_readings(external)))
    heads: dict[_Part, _Head] = {}
    return tuple(dict.fromkeys([_bounded(external, part, heads) for part in parts]))[:MAX_FORMS]


def _bounded(text: str, part: _Part, heads: dict[_Part, _Head]) -> str:
    start, stop = part
    read, length = _Part(start, min(stop, start + _READ_CHARACTERS)), stop - start
    head = heads.get(read)
    if head is None:
        head = heads[read] = _read(text[start : read.stop])
    if length <= MAX_BYTES and head.is_readable and len(head.raw) <= MAX_BYTES:
        return head.raw.decode() or NAMELESS
    digest = hashlib.blake2b(head.raw, digest_size=_DIGEST_BYTES, salt=length.to_bytes(16)).hexdigest()
    return f"{head.readable}{_MARK}{digest}"


def _read(head: str) -> _Head:
    readable, length = [], 0
    for run in _READABLE.finditer(head):
        readable.append(run.group())
        length += run.end() - run.start()
        if length >= _HEAD_BYTES:
            break
    cut = "".join(readable).encode()[:_HEAD_BYTES].decode("utf-8", "ignore")
    return _Head(
        raw=head.encode("utf-8", "surrogatepass"),
        readable=cut,
        is_readable=_UNREADABLE.search(head) is None,
    )


def _readings(external: str) -> list[_Part]:
    """Return the id with and without everything that vLLM may have added, as given first."""
    parts = [_Part(0, len(external))]
    for pattern in (_SAMPLE, _ENDPOINT):
        parts += [
            _Part(found.end(), stop) for start, stop in parts if (found := pattern.match(external, start))
        ]
    for pattern in (_BEAM, _NUMBER):
        parts += [
            _Part(part.start, stop) for part in parts if (stop := _end(pattern, external, part)) < part.stop
        ]
    return [part for part in parts if part.start < part.stop] or parts[:1]


def _likeliest(external: str) -> _Part:
    """Return what the client sent if nobody imitates vLLM: its additions are known by their endpoint."""
    whole = _Part(0, len(external))
    sample = _SAMPLE.match(external)
    start = sample.end() if sample and _ENDPOINT.match(external, sample.end()) else 0
    endpoint = _ENDPOINT.match(external, start)
    if endpoint is None:
        return whole
    start = endpoint.end()
    rest = _Part(start, _end(_BEAM, external, _Part(start, len(external))))
    if endpoint.group() == "cmpl-" and rest.stop == len(external):
        # A beam has no number of its prompt: vLLM gives all of them the id of the whole request.
        rest = _Part(start, _end(_NUMBER, external, rest))
    return rest if rest.start < rest.stop else whole


def _end(pattern: re.Pattern[str], external: str, part: _Part) -> int:
    """Return where the part ends without the addition, which is where it does if it has none."""
    found = pattern.search(external, max(part.start, part.stop - _LONGEST_END), part.stop)
    return part.stop if found is None else found.start()
