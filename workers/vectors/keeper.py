"""Keeps the vectors of a batch in the transaction that stores what was read from them."""

import datetime as dt
import uuid
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

import structlog
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session

from service.store.identity import tenant_id
from service.store.vectors import keys, rows
from service.store.vectors.keys import NoKeyError
from service.store.vectors.sealing import SealingError
from subtext_sidecar.contract.record import Record
from workers.errors import is_outage
from workers.vectors.plan import Keeping

log = structlog.get_logger()
_FORBIDDEN = "42"  # class of SQLSTATE: no such table, or no right to it


class SkipReason(StrEnum):
    """Why vectors that should be kept were not."""

    NO_KEY = "no_key"  # the tenant's were destroyed, and nobody made another one
    KEY_REFUSED = "key_refused"  # the file's key does not open the tenant's
    STORE_REFUSED = "store_refused"


class KeptBatch(NamedTuple):
    """What was kept of a batch."""

    vectors: int = 0
    bytes: int = 0
    """Of the vectors, before they were sealed."""
    skipped: int = 0
    reason: SkipReason | None = None


class Activation(NamedTuple):
    """A sample with the record that it was read from."""

    sample_id: uuid.UUID
    captured_at: dt.datetime
    record: Record


class VectorKeeper:
    """Keeps what the plan names of one model."""

    def __init__(self, keeping: Keeping, *, model: str) -> None:
        self._plan, self._wrapping = keeping
        self._model = model

    def keep(
        self, session: Session, tenant: str, samples: Sequence[Activation], now: dt.datetime
    ) -> KeptBatch:
        """Seal and insert the vectors of these samples, which are new and all of this tenant.

        Whatever is wrong with keys or table costs the vectors alone: it happens in a savepoint. Raises an
        outage of the store, after which the batch is repeated anyway.
        """
        days = self._plan.days_of(tenant, self._model)
        if days is None or not samples:
            return KeptBatch()
        whose = tenant_id(tenant)
        new = [_new_vector(one, dt.timedelta(days=days), now) for one in samples]
        try:
            with session.begin_nested():
                rows.add_vectors(session, whose, keys.key_in_use(session, whose, self._wrapping), new)
        except NoKeyError as error:
            return _skipped(SkipReason.NO_KEY, samples, error)
        except SealingError as error:
            return _skipped(SkipReason.KEY_REFUSED, samples, error)
        except SQLAlchemyError as error:
            if is_outage(error) and not _is_forbidden(error):
                raise
            return _skipped(SkipReason.STORE_REFUSED, samples, error)
        return KeptBatch(len(new), sum(len(one.values) for one in new))


def _new_vector(one: Activation, kept_for: dt.timedelta, now: dt.datetime) -> rows.NewVector:
    header = one.record.header
    return rows.NewVector(
        sample_id=one.sample_id,
        captured_at=one.captured_at,
        dtype=header.dtype,
        d_model=header.shape[0],
        values=one.record.vector,
        # An engine whose clock is ahead must not have its vectors kept longer.
        expires_at=min(one.captured_at, now) + kept_for,
    )


def _skipped(reason: SkipReason, samples: Sequence[Activation], error: Exception) -> KeptBatch:
    log.warning("vectors_not_kept", reason=reason, vectors=len(samples), error=str(error))
    return KeptBatch(skipped=len(samples), reason=reason)


def _is_forbidden(error: Exception) -> bool:
    """Tell whether it is these two tables that the store refuses, and so nothing to wait for."""
    state = getattr(error.orig, "sqlstate", None) if isinstance(error, DBAPIError) else None
    return str(state)[:2] == _FORBIDDEN
