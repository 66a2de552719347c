"""Concepts: what models are watched for, since when, and what is known of each version's rate."""

import datetime as dt
from itertools import groupby
from typing import Annotated, Final

from fastapi import APIRouter, Query
from pydantic import Field
from sqlalchemy.orm import Session

from service.api.deps import Held, ReadsFlags, reading
from service.api.parameters import Absent, Name, Parameters, Time
from service.api.routes.coverage import wrong_range
from service.api.schemas.concept import (
    Calibrations,
    Concept,
    ConceptList,
    concept_version,
    share,
)
from service.store.read import concepts
from subtext_sidecar.contract.configuration import Kind

router = APIRouter(tags=["configuration"])
_DEFAULT_RANGE: Final = dt.timedelta(days=7)
_LONGEST: Final = dt.timedelta(days=31)


class ConceptParameters(Parameters):
    """Of which model, and in which range to count what was flagged."""

    model: Name | Absent = Field(default=None, description="Served model name; default: all.")
    start: Time | Absent = Field(
        default=None, alias="from", description="Start of the range; default: seven days before its end."
    )
    end: Time | Absent = Field(
        default=None, alias="to", description="End of the range; default: now. At most 31 days."
    )


@router.get("/concepts", summary="List concepts with their versions and false-positive rates")
def list_concepts(
    held: Held, caller: ReadsFlags, parameters: Annotated[ConceptParameters, Query()]
) -> ConceptList:
    """Return every concept that a model was ever watched for, each with all of its versions.

    Of each version: since when it is used and whether it is now, its rule, its false-positive rate with
    upper limit and number of benign requests, and how many of the requests that were read in the range it
    flagged. A version without a measured rate says why; its flags are leads.
    """
    end = parameters.end or held.clock()
    start = parameters.start or end - _DEFAULT_RANGE
    if start >= end:
        raise wrong_range("empty_range", "must be earlier than the end of the range")
    if end - start > _LONGEST:
        raise wrong_range("range_too_long", f"the range may span at most {_LONGEST.days} days")
    with reading(held, caller) as session:
        items = _concepts(session, concepts.Window(start=start, end=end, model=parameters.model))
    return ConceptList(start=start, end=end, items=items)


def _concepts(session: Session, window: concepts.Window) -> list[Concept]:
    calibrations = Calibrations(list(concepts.list_calibrations(session, window.model)))
    in_force = concepts.list_in_force(session, window.model)
    rates = concepts.list_rates(session)
    counts = concepts.count(session, window)
    used = concepts.list_used(session, window.model)
    return [
        Concept(
            model=model,
            concept=name,
            versions=[
                concept_version(
                    one,
                    calibrations,
                    rates.get((one.model_id, one.digest)),
                    share(
                        counts.flagged.get((one.model_id, one.digest), 0), counts.read.get(one.model_id, 0)
                    ),
                    is_in_force=_is_in_force(in_force.get(one.model, {}), one.digest),
                )
                for one in reversed(list(versions))
            ],
        )
        for (model, name), versions in groupby(used, lambda one: (one.model, one.name))
    ]


def _is_in_force(contents: dict[str, list[dict[str, object]]], digest: str) -> bool | None:
    """Tell whether a worker watches for this definition; None where none says what it watches for."""
    reported = contents.get(Kind.CONCEPTS)
    if reported is None:
        return None
    return any(digest in _digests(content) for content in reported)


def _digests(content: dict[str, object]) -> set[object]:
    listed = content.get("concepts")
    return {one.get("digest") for one in listed} if isinstance(listed, list) else set()
