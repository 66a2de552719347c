"""Comparison: what was found of a model before and after a time, as that of its or its decoder's update."""

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Final, NamedTuple

from fastapi import APIRouter, Query
from pydantic import Field
from sqlalchemy.orm import Session

from service.api.deps import Compares, Held, reading
from service.api.http.responses import problems
from service.api.parameters import Name, Parameters, Time
from service.api.routes.configuration import past_time
from service.api.schemas.comparison import (
    AnomalyRate,
    ComparisonSide,
    ConceptDifference,
    ConfigurationComparison,
    ConfigurationPair,
    ConfigurationSide,
    Difference,
    MeanEstimate,
    ReaderFidelity,
    ShareEstimate,
)
from service.api.schemas.coverage import Sums
from service.api.schemas.explanation import DecoderReference
from service.api.schemas.statement import interval
from service.coverage.losses import traffic_sums
from service.errors import FieldError, ProblemError, invalid_input
from service.prevalence import change
from service.prevalence.estimate import CONFIDENCE, FittedShare, fit_share
from service.prevalence.retained import Cell, retained_by_cell
from service.prevalence.statement import Reader, RequestGroup, groups_by_reader, sampled_requests
from service.store.configuration import read
from service.store.read import comparison, coverage, prevalence, windows
from service.store.tables import Decoder
from subtext_sidecar.contract.configuration import Kind

router = APIRouter(tags=["configuration"])
_LONGEST: Final = dt.timedelta(days=31)
_UNITS: Final = {"h": dt.timedelta(hours=1), "d": dt.timedelta(days=1)}
_TAIL: Final = (1.0 - CONFIDENCE) / 2.0


class ComparisonParameters(Parameters):
    """Of which model, around which time."""

    model: Name = Field(description="Served model name.")
    at: Time = Field(description="When something changed, as `GET /v1/configuration/changes` tells.")
    window: str = Field(
        default="7d",
        pattern="^[1-9][0-9]{0,2}[hd]$",
        description="Length of either side: hours or days, at most 31 days.",
        examples=["24h", "7d"],
    )

    def length(self) -> dt.timedelta:
        """Return the window's length; raises 422 when it is too long."""
        length = int(self.window[:-1]) * _UNITS[self.window[-1]]
        if length > _LONGEST:
            message = "the window may span at most 31 days on either side; shorten it"
            raise invalid_input(
                [FieldError(location="query", field="window", code="range_too_long", message=message)]
            )
        return length


@router.get(
    "/configuration/comparison",
    summary="Compare before and after a change",
    responses=problems(HTTPStatus.NOT_FOUND),
)
def get_configuration_comparison(
    held: Held, caller: Compares, parameters: Annotated[ComparisonParameters, Query()]
) -> ConfigurationComparison:
    """Return coverage, fidelity, anomalies and concepts of a window before a time and of one after it.

    Each concept's difference has its interval and a two-sided test, adjusted over all tests of the answer.
    A difference is no cause: it says that something changed, and not what made it.
    """
    with reading(held, caller) as session:
        return compare(session, parameters)


def compare(session: Session, parameters: ComparisonParameters) -> ConfigurationComparison:
    """Return the comparison; 404 for an unknown model, 422 for what is to come or too long."""
    length, now = parameters.length(), read.now(session)
    # Coverage is known by the minute.
    at = past_time(parameters.at, now).replace(second=0, microsecond=0)
    model = prevalence.find_model(session, parameters.model)
    if model is None:
        raise ProblemError(
            HTTPStatus.NOT_FOUND,
            "unknown_model",
            "no decoder has read this model yet; `GET /v1/models` lists those that are known",
        )
    sides = [
        prevalence.Window(model=model, start=at + begin, end=at + begin + length)
        for begin in (-length, length * 0)
    ]
    before, after = (_judge(session, window) for window in sides)
    decoders = prevalence.list_decoders(session, sides[0])
    concepts = comparison.list_concepts(session, model.id) | before.concepts | after.concepts
    differences = _differences(_pairs(before, after), sorted(concepts), decoders)
    found_before, found_after = (_side(session, window, decoders, now) for window in sides)
    return ConfigurationComparison(
        model=model.name,
        at=at,
        as_of=now,
        before=found_before,
        after=found_after,
        configurations=_configurations(session, *sides),
        concepts=differences,
        tests=sum(one.difference is not None for one in differences),
    )


def _side(
    session: Session, window: prevalence.Window, decoders: Mapping[uuid.UUID, Decoder], now: dt.datetime
) -> ComparisonSide:
    name = window.model.name
    # From minute to minute, and of whole hours in length.
    counted = coverage.Range(start=window.start, end=window.end, model=name)
    return ComparisonSide(
        start=window.start,
        end=window.end,
        is_over=window.end <= now,
        coverage=Sums.model_validate(traffic_sums(coverage.list_counts(session, counted, "hour", {}))),
        readers=[
            _fidelity(one, decoders[one.reader.decoder_id])
            for one in comparison.list_fidelities(session, window)
        ],
        anomalies=[
            AnomalyRate(
                decoder=one.digest,
                false_discovery_rate=one.fdr,
                requests=one.requests,
                anomalies=one.discoveries,
                rate=interval(one.discoveries, one.requests - one.discoveries),
            )
            for one in windows.count_tested(session, window.start, window.end, name)
        ],
    )


def _fidelity(found: comparison.Fidelity, decoder: Decoder) -> ReaderFidelity:
    mean = change.mean_of(found.fve)
    verified = _share(change.share_of(found.is_verified, found.rows), found.rows, found.verified)
    if mean is None or verified is None:
        raise ValueError("a reader without any request")
    return ReaderFidelity(
        layer=found.reader.layer,
        decoder=DecoderReference.of(decoder),
        fve=MeanEstimate(**mean._asdict(), n=found.rows, requests=found.fve.requests),
        verified=verified,
    )


class _Judged(NamedTuple):
    """The judged requests of one side."""

    by_reader: Mapping[Reader, Sequence[RequestGroup]]
    retained: Mapping[Cell, float]

    @property
    def concepts(self) -> set[str]:
        groups = (group for of_reader in self.by_reader.values() for group in of_reader)
        return {concept for group in groups for concept in group.concepts}

    def readers(self, layer: int) -> list[Reader | None]:
        """Return who read the layer; nobody is one that read nothing."""
        return [one for one in self.by_reader if one.layer == layer] or [None]


def _judge(session: Session, window: prevalence.Window) -> _Judged:
    return _Judged(
        groups_by_reader(prevalence.list_groups(session, window)),
        retained_by_cell(prevalence.list_minutes(session, window)),
    )


class _OfReader(NamedTuple):
    reader: Reader | None
    judged: _Judged

    def fit(self, concept: str) -> tuple[FittedShare | None, int, int]:
        """Return the share with its requests, all and flagged."""
        groups = [] if self.reader is None else self.judged.by_reader[self.reader]
        requests = sampled_requests(groups, concept, self.judged.retained)
        flagged = int(requests.count @ requests.is_flagged)
        return fit_share(requests), int(requests.count.sum()), flagged


class _Pair(NamedTuple):
    """What read one layer before, and what did after."""

    layer: int
    before: _OfReader
    after: _OfReader


def _pairs(before: _Judged, after: _Judged) -> list[_Pair]:
    layers = sorted({reader.layer for reader in (*before.by_reader, *after.by_reader)})
    return [
        _Pair(layer, _OfReader(one, before), _OfReader(other, after))
        for layer in layers
        for one in before.readers(layer)
        for other in after.readers(layer)
    ]


def _differences(
    pairs: Sequence[_Pair], concepts: Sequence[str], decoders: Mapping[uuid.UUID, Decoder]
) -> list[ConceptDifference]:
    fitted = [
        (pair, concept, pair.before.fit(concept), pair.after.fit(concept))
        for pair in pairs
        for concept in concepts
    ]
    changes = [change.estimate_change(before[0], after[0]) for _, _, before, after in fitted]
    adjusted = iter(change.adjusted([one.p_value for one in changes if one is not None]))
    return [
        ConceptDifference(
            concept=concept,
            layer=pair.layer,
            decoder_before=_reference(pair.before.reader, decoders),
            decoder_after=_reference(pair.after.reader, decoders),
            before=_share(*before),
            after=_share(*after),
            difference=None if found is None else _difference(found, float(next(adjusted))),
        )
        for (pair, concept, before, after), found in zip(fitted, changes, strict=True)
    ]


def _difference(found: change.Change, adjusted: float) -> Difference:
    return Difference(
        estimate=found.difference,
        lower=found.lower,
        upper=found.upper,
        p_value=found.p_value,
        p_value_adjusted=adjusted,
        is_significant=adjusted <= change.FALSE_DISCOVERY_RATE,
    )


def _share(fitted: FittedShare | None, n: int, hits: int) -> ShareEstimate | None:
    if fitted is None:
        return None
    lower, upper = fitted.interval(_TAIL)
    return ShareEstimate(
        estimate=fitted.estimate, lower=lower, upper=upper, n=n, hits=hits, effective_n=fitted.effective
    )


def _reference(reader: Reader | None, decoders: Mapping[uuid.UUID, Decoder]) -> DecoderReference | None:
    return None if reader is None else DecoderReference.of(decoders[reader.decoder_id])


def _configurations(
    session: Session, before: prevalence.Window, after: prevalence.Window
) -> list[ConfigurationPair]:
    of_before, of_after = (
        read.list_in_force_within(session, side.start, side.end, side.model.name)
        for side in (before, after)
    )
    return [_configuration(kind, of_before, of_after) for kind in Kind]


def _configuration(
    kind: Kind, before: Sequence[read.InForce], after: Sequence[read.InForce]
) -> ConfigurationPair:
    then, now = (
        # In the order of their begins, each once.
        list(dict.fromkeys(one.view.version.digest for one in side if one.period.kind == kind))
        for side in (before, after)
    )
    return ConfigurationPair(
        kind=kind,
        before=ConfigurationSide(known=bool(then), digests=then),
        after=ConfigurationSide(known=bool(now), digests=now),
        changed={*then} != {*now} if then and now else None,
    )
