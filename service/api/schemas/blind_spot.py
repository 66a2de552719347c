"""What was not looked at, in words that need no knowledge of the code."""

from collections import Counter
from collections.abc import Iterable
from typing import Final

from pydantic import Field

from service.api.schemas.answer import Answer
from service.store import coverage

_HOPS: Final = ("plugin", "sidecar", "worker")
_UNOBSERVABLE: Final = "unobservable_"
_OPT_OUT: Final = "opt_out"
_THINNED: Final = "thinned"

# By code: always there, whether or not anything counts them.
_ALWAYS: Final = {
    "not_sampled": "Requests and positions that were not sampled: nothing is known of them.",
    "prefix_cached": "Prompt tokens that were served from the prefix cache were not computed, so there was "
    "nothing to sample.",
    "parallel_sample": "Of a request with n > 1 only the first completion is read: all share one id.",
    "not_expressible": "What a decoder cannot put into words. Fidelity shows that it works on a vector, "
    "not that a text is true.",
}
# Listed only with a count.
_COUNTED: Final = {
    _OPT_OUT: "Requests whose client asked not to be sampled: they were counted, and not read.",
    _THINNED: "Sampled rows that the sidecar left out by chance, to stay within its budget. Estimates that "
    "weight by the recorded probabilities stay unbiased; what these rows held is not known.",
    "batched_prompt": "Of a completion request with several prompts only the first is read: all share "
    "one id.",
    "drafted": "Generated tokens that were drafted and accepted: their rows are not certain to be text, so "
    "none was taken.",
    "adapted": "Requests that ran with a LoRA adapter: not the model that the decoder was made for.",
    "past_row_cap": "Positions past the greatest number of rows that may be taken of one request.",
}
_UNSENT: Final = (
    "Counts that a process had not sent when it was killed; up to its last interval is missing."
)


class BlindSpot(Answer):
    """Something that these figures cannot see."""

    code: str = Field(description="Stable name.", examples=["prefix_cached"])
    detail: str = Field(description="The same in plain words.")
    count: int | None = Field(
        description="How many requests or rows it was within the range; null where nobody can count it.",
        examples=[12],
    )


ALWAYS_BLIND: Final = tuple(
    BlindSpot(code=code, detail=detail, count=None) for code, detail in _ALWAYS.items()
)


def blind_spots(counts: Iterable[coverage.Count]) -> list[BlindSpot]:
    """Return what these counts cannot see: silent hops, then what is counted, then what is always so."""
    heard: set[str] = set()
    found: Counter[str] = Counter()
    for count in counts:
        heard.add(count.hop)
        if code := _code(count):
            found[code] += count.value
    silent = [hop for hop in _HOPS if hop not in heard]
    return [
        *(BlindSpot(code=f"silent_{hop}", detail=_silence(hop), count=None) for hop in silent),
        *(
            BlindSpot(code=code, detail=_detail(code), count=count)
            for code, count in sorted(found.items())
            if count
        ),
        *(spot for spot in ALWAYS_BLIND if not found[spot.code]),
        BlindSpot(code="unsent_counts", detail=_UNSENT, count=None),
    ]


def _code(count: coverage.Count) -> str | None:
    if count.hop == "sidecar" and count.counter == _THINNED:
        return _THINNED
    if count.hop != "plugin":
        return None
    if count.stratum == _OPT_OUT and count.counter == "requests_seen":
        return _OPT_OUT
    if count.counter == "requests_adapted":
        return "adapted"
    return count.counter.removeprefix(_UNOBSERVABLE) if count.counter.startswith(_UNOBSERVABLE) else None


def _detail(code: str) -> str:
    known = _ALWAYS | _COUNTED
    return known.get(code, f"What sampling wanted and could not see; the plugin's reason is {code!r}.")


def _silence(hop: str) -> str:
    return f"No {hop} reported in this range: either nothing came by, or nobody was looking."
