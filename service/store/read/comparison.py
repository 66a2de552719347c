"""What a comparison of two windows is worked out from, beyond coverage, prevalence and configurations."""

import uuid
from typing import NamedTuple

from sqlalchemy import BigInteger, Float, Integer, case, cast, func, select
from sqlalchemy.orm import Session

from service.prevalence.change import Ratio
from service.prevalence.statement import Reader
from service.store.days import is_sample_of_explanation, near
from service.store.read.prevalence import Window
from service.store.tables import Explanation, ModelConcept, Sample


class Fidelity(NamedTuple):
    """What one reader's rows of the random baseline sum up to, over one window."""

    reader: Reader
    rows: int
    verified: int
    fve: Ratio
    is_verified: Ratio


def list_concepts(session: Session, model_id: uuid.UUID) -> set[str]:
    """Return the concepts that the model was ever watched for, by the definitions that workers told."""
    return {*session.scalars(select(ModelConcept.name).where(ModelConcept.model_id == model_id).distinct())}


def list_fidelities(session: Session, window: Window) -> list[Fidelity]:
    """Return the sums of each reader that read a row of the random baseline, by layer and decoder."""
    weight = 1.0 / Sample.baseline_probability
    unit = (Explanation.decoder_id, Sample.layer, Sample.capture_id, Sample.request_id)
    one = (
        select(
            *unit,
            func.count().label("rows"),
            func.sum(cast(Explanation.verified, Integer)).label("verified"),
            func.sum(weight).label("w"),
            func.sum(weight * Explanation.fve).label("f"),
            func.sum(case((Explanation.verified, weight), else_=0.0)).label("v"),
        )
        .join(Sample, is_sample_of_explanation())
        .where(
            Explanation.captured_at >= window.start,
            Explanation.captured_at < window.end,
            near(Sample.captured_at, window.start, window.end),
            Sample.model_id == window.model.id,
            Sample.baseline_probability > 0,
        )
        .group_by(*unit)
        .subquery()
    ).c
    products = (one.w, one.f, one.v, one.w * one.w, one.w * one.f, one.f * one.f, one.w * one.v)
    query = (
        select(
            one.decoder_id,
            one.layer,
            func.count(),
            cast(func.sum(one.rows), BigInteger),
            cast(func.sum(one.verified), BigInteger),
            *(cast(func.sum(product), Float) for product in (*products, one.v * one.v)),
        )
        .group_by(one.decoder_id, one.layer)
        .order_by(one.layer, one.decoder_id)
    )
    return [
        Fidelity(
            Reader(decoder_id, layer),
            rows,
            verified,
            Ratio(requests, w, f, ww, wf, ff),
            Ratio(requests, w, v, ww, wv, vv),
        )
        for decoder_id, layer, requests, rows, verified, w, f, v, ww, wf, ff, wv, vv in session.execute(
            query
        )
    ]
