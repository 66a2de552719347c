"""Request ids as clients choose them: cleaned, bounded, and the forms under which one is looked up. Pure.

A client's id is an attribute to look up by and never an identity: two requests may share it, it may
have any length, and it may imitate what vLLM adds to others. vLLM passes it on with additions of its
own, ``[{sample}_]{endpoint}-{id}[-{prompt}|_{turn}]``, which cannot be told from an id that a client
wrote like that. So a request has several forms, one for each way to read it, and is found by each.
"""

import hashlib
import re
from typing import Final

MAX_BYTES: Final = 256
MAX_FORMS: Final = 8
# Nothing behind so many characters is looked at: ids of megabytes must cost no more than short ones.
_READ_CHARACTERS: Final = 4096
_DIGEST_BYTES: Final = 16
_HEAD_BYTES: Final = MAX_BYTES - 2 * _DIGEST_BYTES - 1
_MARK: Final = "~"  # between the head of a long id and its digest
NAMELESS: Final = "-"  # stands for an id of which nothing readable is left

_UNREADABLE: Final = re.compile(r"[^\x20-\x7e\xa0-\ud7ff\ue000-\ufdcf\ufdf0-\ufffd\U00010000-\U0010ffff]")
# vLLM's counters have few digits; an id of thousands is a client's.
_SAMPLE: Final = re.compile(r"\d{1,6}_")
_ENDPOINT: Final = re.compile(r"chatcmpl-|cmpl-|generate-tokens-|decision-|generative-scoring-|rt-")
_BEAM: Final = re.compile(r"-[0-9a-f]{32}-beam-\d{1,6}\Z")
_NUMBER: Final = re.compile(r"[-_]\d{1,6}\Z")


def bounded(text: str) -> str:
    """Return the id as it is stored: readable, not empty, at most MAX_BYTES of UTF-8.

    What is longer, or holds control characters or lone surrogates, keeps its readable beginning and
    gets a digest, so that two such ids stay apart. The same id always becomes the same text.
    """
    head = text[:_READ_CHARACTERS]
    if len(text) <= MAX_BYTES and not _UNREADABLE.search(head) and len(head.encode()) <= MAX_BYTES:
        return head or NAMELESS
    raw = head.encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(raw, digest_size=_DIGEST_BYTES, salt=len(text).to_bytes(16)).hexdigest()
    readable = _UNREADABLE.sub("", head).encode()[:_HEAD_BYTES].decode("utf-8", "ignore")
    return f"{readable}{_MARK}{digest}"


def forms(external: str) -> tuple[str, ...]:
    """Return how the request can be looked up, bounded and distinct, with the likeliest form first.

    ``external`` is the id that vLLM was given, without the random digits that it adds itself.
    """
    head, tail = external[:_READ_CHARACTERS], external[_READ_CHARACTERS:]
    is_whole = not tail
    readings = (_likeliest(head, is_whole=is_whole), *_readings(head, is_whole=is_whole))
    found = dict.fromkeys(bounded(reading + tail) for reading in readings)
    return tuple(found)[:MAX_FORMS]


def _readings(external: str, *, is_whole: bool) -> list[str]:
    """Return the id with and without everything that vLLM may have added, as given first."""
    readings = [external]
    for pattern in (_SAMPLE, _ENDPOINT):
        readings += [one[found.end() :] for one in readings if (found := pattern.match(one))]
    if is_whole:
        for pattern in (_BEAM, _NUMBER):
            readings += [one[: found.start()] for one in readings if (found := pattern.search(one))]
    return [one for one in readings if one]


def _likeliest(external: str, *, is_whole: bool) -> str:
    """Return what the client sent if nobody imitates vLLM: its additions are known by their endpoint."""
    sample = _SAMPLE.match(external)
    start = sample.end() if sample and _ENDPOINT.match(external, sample.end()) else 0
    endpoint = _ENDPOINT.match(external, start)
    if endpoint is None:
        return external
    rest = external[endpoint.end() :]
    if is_whole:
        rest = _BEAM.sub("", rest)
        if endpoint.group() == "cmpl-":
            rest = _NUMBER.sub("", rest)
    return rest or external
