"""Delete kept vectors whose days are over, but for those of samples under a legal hold."""

import datetime as dt
from typing import Final

from sqlalchemy.orm import Session, sessionmaker

from service.retention import holds
from service.store.tenants import scope
from service.store.tenants.read import list_ids
from service.store.vectors import rows

_AT_ONCE: Final = 2_000
"""Vectors deleted in one transaction: some 15 MB of a large model."""


def expire(sessions: sessionmaker[Session], now: dt.datetime) -> int:
    """Delete what is over, tenant by tenant, and return how many vectors there were."""
    with sessions() as session:
        tenants = list_ids(session)
    gone = 0
    for tenant in tenants:
        deleted = _AT_ONCE
        while deleted == _AT_ONCE:
            with sessions.begin() as session:
                scope.set_tenant(session, tenant)
                # Holds are placed by tenant: each transaction is of one.
                holds.freeze(session)
                deleted = rows.expire(session, now, _AT_ONCE, spared=holds.covers())
            gone += deleted
    return gone
