"""What a request's readings say together. Pure: plain values in, plain values out, no database and no HTTP.

`claims` are as `workers.consumer.pipeline` stores them: `area`, `areas`, `kinds` and `kind_scores` among
others.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

NAMED_FROM: Final = 0.3
"""Mean probability from which on a request's area is named. On 434 calibration chats of the shipped pair
this names 38% of the requests, and 73% of the names are the labeller's; on 465 held-out chats, which were
looked at when it was chosen, 37% and 74%."""


class Kind(NamedTuple):
    """How strongly a request's readings touch on one kind."""

    kind: str
    mean_score: float
    """Over all readings; one that gives it no score counts 0."""
    max_score: float
    readings: int
    """How many name it."""


class Summary(NamedTuple):
    """What a request is about, as its readings have it."""

    text: str
    area: str | None
    """The likeliest one; None where its mean probability is below `NAMED_FROM`, or no reading agrees."""
    area_probability: float | None
    """Its mean probability over all readings."""
    readings_naming_it: int
    """How many have it as their own likeliest area."""
    readings: int
    """Readings with claims."""
    kinds: list[Kind]
    """By mean score, highest first."""


def summarize(claims: Sequence[Mapping[str, Any]]) -> Summary | None:
    """Pool the claims of a request's readings; None without any.

    Positions are pooled because one alone is often unsure: the mean of weak and agreeing probabilities is
    worth more than the loudest single one.
    """
    if not claims:
        return None
    total = len(claims)
    mean = _means([said["areas"] for said in claims])
    likeliest = _likeliest(mean)
    naming = sum(_likeliest(said["areas"]) == likeliest for said in claims)
    kinds = _kinds(claims)
    if likeliest is None or naming == 0 or mean[likeliest] < NAMED_FROM:
        return Summary(f"no clear theme in {total} {_readings(total)}", None, None, 0, total, kinds)
    text = f"about {likeliest} ({naming} of {total} {_readings(total)})"
    return Summary(text, likeliest, mean[likeliest], naming, total, kinds)


def _likeliest(areas: Mapping[str, float]) -> str | None:
    return min(areas, key=lambda area: (-areas[area], area)) if areas else None


def _readings(count: int) -> str:
    return "reading" if count == 1 else "readings"


def _kinds(claims: Sequence[Mapping[str, Any]]) -> list[Kind]:
    scores: list[Mapping[str, float]] = [said["kind_scores"] for said in claims]
    kinds = [
        Kind(
            kind=kind,
            mean_score=mean,
            max_score=max(given.get(kind, 0.0) for given in scores),
            readings=sum(kind in said["kinds"] for said in claims),
        )
        for kind, mean in _means(scores).items()
    ]
    return sorted(kinds, key=lambda found: (-found.mean_score, found.kind))


def _means(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = {name for part in parts for name in part}
    # fsum: the order of readings must not decide between two areas that are equally likely.
    return {name: math.fsum(part.get(name, 0.0) for part in parts) / len(parts) for name in names}
