"""The names that captures are looked up by, stored with their samples. The caller commits."""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service.store import identity
from service.store.days import near
from service.store.tables import RequestName, Sample


class NamedSample(NamedTuple):
    """A sample and what its request can be looked up by besides its request id."""

    sample: Sample
    names: Sequence[str]


def add_names(
    session: Session,
    samples: Iterable[NamedSample],
    model_id: uuid.UUID,
    tenant: uuid.UUID | None = None,
) -> None:
    """Name the samples' captures unless they are named already.

    The first sample that is stored of a capture gives its place in time, which never changes: pages
    follow it. The caller holds the captures' locks, so that no other worker names the same. ``tenant`` is
    the one that the transaction is about; None: the default one.
    """
    rows: dict[tuple[str, uuid.UUID], dict[str, Any]] = {}
    whose = identity.tenant_id(identity.DEFAULT_TENANT) if tenant is None else tenant
    for sample, names in sorted(samples, key=lambda one: one.sample.captured_at):
        capture = identity.capture_key(sample.capture_id, model_id, sample.request_id, whose)
        for name in (sample.request_id, *names):
            row = {
                "name": name,
                "capture": capture,
                "model_id": model_id,
                "capture_id": sample.capture_id,
                "request_id": sample.request_id,
                "captured_at": sample.captured_at,
            }
            rows.setdefault((name, capture), row)
    for key in _list_known(session, rows):
        del rows[key]
    if rows:
        session.execute(insert(RequestName).on_conflict_do_nothing(), list(rows.values()))


def _list_known(
    session: Session, rows: Mapping[tuple[str, uuid.UUID], Mapping[str, Any]]
) -> list[tuple[str, uuid.UUID]]:
    """Return which of these names their captures have already, with whatever time."""
    if not rows:
        return []
    times = [row["captured_at"] for row in rows.values()]
    query = select(RequestName.name, RequestName.capture).where(
        tuple_(RequestName.name, RequestName.capture).in_(list(rows)),
        near(RequestName.captured_at, min(times), max(times)),
    )
    return [(name, capture) for name, capture in session.execute(query)]
