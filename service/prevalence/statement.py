"""What the judged requests of a window say about concepts, by decoder and layer. Pure.

The unit is the request. A request has one draw for all of its rows at the plugin, and one at the screen
whose rate may change while the request runs: a row passes when the draw is below its rate. So a request is
judged at all with the largest baseline probability of its rows, and that row is always among the judged.
"""

import datetime as dt
import math
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from service.prevalence.bound import anytime_lower
from service.prevalence.estimate import CONFIDENCE, SampledRequests, estimate_share
from service.prevalence.retained import Cell


class RequestGroup(NamedTuple):
    """Requests of the random baseline that are alike."""

    decoder_id: uuid.UUID
    layer: int
    start: dt.datetime  # of the minute of their first row
    stratum: str
    probability: float  # that the baseline takes such a request
    requests: int
    verified: int  # requests with at least one verified reading
    rows: int
    concepts: Sequence[str]  # with which they were flagged


class Reader(NamedTuple):
    """Which decoder judged, at which layer."""

    decoder_id: uuid.UUID
    layer: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ConceptPrevalence:
    """The share of requests with one concept, as one decoder reads them at one layer."""

    reader: Reader
    concept: str
    estimate: float | None  # None without any request
    lower: float
    upper: float
    lower_anytime: float
    confidence: float
    rows: int
    requests: int
    requests_verified: int
    requests_flagged: int
    requests_uncounted: int  # from minutes of which no loss is known, because no counts arrived
    effective_requests: float
    retained: float | None  # mean share of the rows of these requests' minutes that were not lost


def concept_prevalences(
    groups: Iterable[RequestGroup],
    retained: Mapping[Cell, float],
    concepts: Iterable[str],
    confidence: float = CONFIDENCE,
) -> list[ConceptPrevalence]:
    """Return the prevalence of each of these concepts by each reader, sorted; none without a group."""
    by_reader = groups_by_reader(groups)
    wanted = sorted(set(concepts))
    return [
        _prevalence(reader, concept, of_reader, retained, confidence)
        for reader, of_reader in by_reader.items()
        for concept in wanted
    ]


def groups_by_reader(groups: Iterable[RequestGroup]) -> dict[Reader, list[RequestGroup]]:
    """Return the groups of each reader, by layer and decoder."""
    found: defaultdict[Reader, list[RequestGroup]] = defaultdict(list)
    for group in groups:
        found[Reader(group.decoder_id, group.layer)].append(group)
    return {
        reader: found[reader] for reader in sorted(found, key=lambda one: (one.layer, str(one.decoder_id)))
    }


def sampled_requests(
    groups: Sequence[RequestGroup], concept: str, retained: Mapping[Cell, float]
) -> SampledRequests:
    """Return the columns that the share of the concept follows from; of unknown losses, as if of none."""
    return SampledRequests(
        count=np.array([group.requests for group in groups], np.int64),
        probability=np.array([group.probability for group in groups]),
        is_flagged=np.array([concept in group.concepts for group in groups], np.bool_),
        retained=np.array([retained.get(Cell(group.start, group.stratum), 1.0) for group in groups]),
    )


def _prevalence(
    reader: Reader,
    concept: str,
    groups: Sequence[RequestGroup],
    retained: Mapping[Cell, float],
    confidence: float,
) -> ConceptPrevalence:
    requests = sampled_requests(groups, concept, retained)
    share = estimate_share(requests, confidence)
    return ConceptPrevalence(
        reader=reader,
        concept=concept,
        estimate=None if math.isnan(share.estimate) else share.estimate,
        lower=share.lower,
        upper=share.upper,
        lower_anytime=anytime_lower(requests, confidence),
        confidence=confidence,
        rows=sum(group.rows for group in groups),
        requests=share.requests,
        requests_verified=sum(group.verified for group in groups),
        requests_flagged=share.flagged,
        requests_uncounted=sum(
            group.requests for group in groups if Cell(group.start, group.stratum) not in retained
        ),
        effective_requests=share.effective_requests,
        retained=float(np.average(requests.retained, weights=requests.count)) if share.requests else None,
    )
