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
    by_reader: defaultdict[Reader, list[RequestGroup]] = defaultdict(list)
    for group in groups:
        by_reader[Reader(group.decoder_id, group.layer)].append(group)
    wanted = sorted(set(concepts))
    return [
        _prevalence(reader, concept, by_reader[reader], retained, confidence)
        for reader in sorted(by_reader, key=lambda one: (one.layer, str(one.decoder_id)))
        for concept in wanted
    ]


def _prevalence(
    reader: Reader,
    concept: str,
    groups: Sequence[RequestGroup],
    retained: Mapping[Cell, float],
    confidence: float,
) -> ConceptPrevalence:
    kept = [retained.get(Cell(group.start, group.stratum)) for group in groups]
    requests = SampledRequests(
        count=np.array([group.requests for group in groups], np.int64),
        probability=np.array([group.probability for group in groups]),
        is_flagged=np.array([concept in group.concepts for group in groups]),
        retained=np.array([1.0 if share is None else share for share in kept]),
    )
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
            group.requests for group, known in zip(groups, kept, strict=True) if known is None
        ),
        effective_requests=share.effective_requests,
        retained=float(np.average(requests.retained, weights=requests.count)) if share.requests else None,
    )
