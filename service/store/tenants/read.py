"""Looks at every tenant, one after the other. The service knows the tenants by their ids alone."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from service.store.tenants.scope import Reach, enter
from service.store.tenants.tables import Tenant

T = TypeVar("T")


def list_tenants(sessions: sessionmaker[Session]) -> list[uuid.UUID]:
    """Return the ids of all tenants."""
    with sessions() as session:
        return list_ids(session)


def list_ids(session: Session) -> list[uuid.UUID]:
    """Return the ids of all tenants, whichever the transaction is about."""
    return list(session.scalars(select(Tenant.id).order_by(Tenant.id)))


@contextmanager
def transaction(
    sessions: sessionmaker[Session], tenant: uuid.UUID, *, isolation_level: str | None = None
) -> Iterator[Session]:
    """Open a transaction that meets one tenant; it is committed unless something raises."""
    with sessions.begin() as session:
        if isolation_level is not None:
            session.connection(execution_options={"isolation_level": isolation_level})
        enter(session, Reach(tenant))
        yield session


def of_each(
    sessions: sessionmaker[Session], look: Callable[[Session], T], *, isolation_level: str | None = None
) -> list[T]:
    """Return what ``look`` gives for each tenant, in a transaction of its own."""
    found = []
    for tenant in list_tenants(sessions):
        with transaction(sessions, tenant, isolation_level=isolation_level) as session:
            found.append(look(session))
    return found
