"""Blind spots of a range of counts, described for readers who do not know the code."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from service.coverage.count import Count
from subtext_sidecar.contract.counters import (
    Hop,
    LossKind,
    PluginCounter,
    SidecarCounter,
    Stratum,
    loss_of,
)

_OPT_OUT: Final = str(Stratum.OPT_OUT)
_THINNED: Final = str(SidecarCounter.THINNED)
_ADAPTED: Final = "adapted"

# Texts by code. These are listed always, with or without a count.
_ALWAYS: Final = {
    "not_sampled": "Requests and positions that were not sampled: nothing is known of them.",
    "prefix_cached": "Prompt tokens that were served from the prefix cache were not computed, so there was "
    "nothing to sample.",
    "not_expressible": "What a decoder cannot put into words. Fidelity shows that it works on a vector, "
    "not that a text is true.",
}
# These are listed only with a count.
_COUNTED: Final = {
    _OPT_OUT: "Requests whose client asked not to be sampled: they were counted, and not read.",
    _THINNED: "Sampled rows that the sidecar left out by chance, to stay within its budget. Estimates that "
    "weight by the recorded probabilities stay unbiased; what these rows held is not known.",
    "unreadable": "Requests that were skipped because what their clients sent made our code fail.",
    "interrupted": "Sampled requests that were under way when an error turned capture off: what came of "
    "them afterwards was not looked at.",
    "capture_off": "Requests that came while an error kept capture off: they are not among the seen.",
    "prefill_off": "Requests whose prompt another engine computed while an error kept its capture off: the "
    "prompt was not looked at.",
    "drafted": "Generated tokens that were drafted and accepted: their rows are not certain to be text, so "
    "none was taken.",
    _ADAPTED: "Requests that ran with a LoRA adapter: not the model that the decoder was made for.",
}
CODES: Final = frozenset({*_ALWAYS, *_COUNTED})
"""Codes with a text of their own; a plugin newer than this service may report others."""
_UNSENT: Final = (
    "Counts that a process had not sent when it was killed; up to its last interval is missing."
)


@dataclass(frozen=True, slots=True)
class BlindSpot:
    """Traffic that was not read, and why."""

    code: str
    detail: str
    count: int | None  # requests or rows; None where counting is impossible


ALWAYS: Final = tuple(BlindSpot(code=code, detail=detail, count=None) for code, detail in _ALWAYS.items())


def blind_spots(counts: Iterable[Count]) -> list[BlindSpot]:
    """Return the blind spots: silent hops, then counted ones, then those that always apply.

    Canaries are no traffic: a hop that counted one is heard, and nothing else of them is told.
    """
    heard: set[str] = set()
    totals: Counter[str] = Counter()
    for count in counts:
        heard.add(count.hop)
        code = None if count.stratum == Stratum.CANARY else _code(count)
        if code is not None:
            totals[code] += count.value
    silent = [hop for hop in Hop if hop not in heard]
    return [
        *(BlindSpot(code=f"silent_{hop}", detail=_silence(hop), count=None) for hop in silent),
        *(
            BlindSpot(code=code, detail=_detail(code), count=count)
            for code, count in sorted(totals.items())
            if count
        ),
        *(spot for spot in ALWAYS if not totals[spot.code]),
        BlindSpot(code="unsent_counts", detail=_UNSENT, count=None),
    ]


def _code(count: Count) -> str | None:
    if count.hop == Hop.SIDECAR and count.counter == SidecarCounter.THINNED:
        return _THINNED
    if count.hop != Hop.PLUGIN:
        return None
    if count.stratum == Stratum.OPT_OUT and count.counter == PluginCounter.REQUESTS_SEEN:
        return _OPT_OUT
    if count.counter == PluginCounter.REQUESTS_ADAPTED:
        return _ADAPTED
    lost = loss_of(count.counter)
    return lost.reason if lost is not None and lost.kind is LossKind.UNOBSERVABLE else None


def _detail(code: str) -> str:
    known = _ALWAYS | _COUNTED
    return known.get(code, f"What sampling wanted and could not see; the plugin's reason is {code!r}.")


def _silence(hop: Hop) -> str:
    return f"No {hop} reported in this range: either nothing came by, or nobody was looking."
