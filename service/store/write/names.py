"""The names that captures are looked up by, stored with their samples. The caller commits."""

import uuid
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service.store import identity
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
    for sample, names in sorted(samples, key=lambda one: one.sample.captured_at):
        capture = identity.capture_key(sample.capture_id, model_id, sample.request_id, tenant)
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
    if rows:
        session.execute(insert(RequestName).on_conflict_do_nothing(), list(rows.values()))
