"""Everything that is stored about one request of the audited model."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.store.read import explanations, flags
from service.store.tables import Model, Sample


class SampleView(NamedTuple):
    """One sample and its model's name."""

    sample: Sample
    model: str


class View(NamedTuple):
    """One request. ``samples_total`` counts all samples, ``samples`` holds the first of them."""

    request_id: str
    samples_total: int
    samples: Sequence[SampleView]
    explanations: Sequence[explanations.View]
    flags: Sequence[flags.View]


def get_request(session: Session, request_id: str, limit: int) -> View | None:
    """Return the request with its first ``limit`` samples, None when no sample of it is stored.

    Clients choose request ids, and one that repeats its id may gather any number of samples;
    hence the limit.
    """
    counted = select(func.count()).select_from(Sample).where(Sample.request_id == request_id)
    total = session.scalar(counted) or 0
    if not total:
        return None
    query = (
        select(Sample, Model.name)
        .join(Model, Model.id == Sample.model_id)
        .where(Sample.request_id == request_id)
        .order_by(Model.name, Sample.layer, Sample.position)
        .limit(limit)
    )
    samples = [SampleView(*row) for row in session.execute(query)]
    return View(
        request_id=request_id,
        samples_total=total,
        samples=samples,
        explanations=explanations.list_of_samples(session, [view.sample.id for view in samples]),
        flags=flags.list_of_request(session, request_id),
    )
