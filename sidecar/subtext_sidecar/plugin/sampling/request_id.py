"""Recover the external request id from the engine's internal one.

vLLM 0.32 builds internal ids as ``[{sample}_]{external}-{8 hex}``; the OpenAI server's external
part is ``chatcmpl-{X-Request-Id}`` or ``cmpl-{X-Request-Id}-{prompt index}``. Pure.
"""

import re
from typing import Final, NamedTuple

from subtext_sidecar.contract.counters import PluginCounter

_PARALLEL_SAMPLE: Final = PluginCounter.UNOBSERVABLE_PARALLEL_SAMPLE
_BATCHED_PROMPT: Final = PluginCounter.UNOBSERVABLE_BATCHED_PROMPT
_SUFFIX: Final = re.compile(r"-[0-9a-f]{8}\Z")
# Only in front of ids that vLLM itself shapes: a client's own id may well start with "3_".
_SAMPLE: Final = re.compile(r"(\d+)_(?=chatcmpl-|cmpl-|\d+\Z)")
_PROMPT_INDEX: Final = re.compile(r"-(\d+)\Z")


class ExternalId(NamedTuple):
    """The client's id, and what counts that this engine request is not observed under it (None: it is).

    One external id stands for one text. Of a request with n > 1 or with several prompts only the
    first is observed, because positions of the others would collide with its own.
    """

    request_id: str
    skip: PluginCounter | None


def external_id(internal: str, *, randomized: bool = True) -> ExternalId:
    """Return the external id; ``randomized`` tells whether vLLM added its eight-digit suffix."""
    rest = _SUFFIX.sub("", internal, count=1) if randomized else internal
    skip: PluginCounter | None = None
    if sample := _SAMPLE.match(rest):
        rest = rest[sample.end() :]
        skip = _PARALLEL_SAMPLE if int(sample.group(1)) else None
    if rest.startswith("chatcmpl-"):
        rest = rest.removeprefix("chatcmpl-")
    elif rest.startswith("cmpl-"):
        rest = rest.removeprefix("cmpl-")
        if index := _PROMPT_INDEX.search(rest):
            rest = rest[: index.start()]
            skip = skip or (_BATCHED_PROMPT if int(index.group(1)) else None)
    return ExternalId(rest or internal, skip)
