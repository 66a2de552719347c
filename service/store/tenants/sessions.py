"""Sessions whose transactions are about one tenant."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.orm import Session, sessionmaker

from service.store.identity import tenant_id
from service.store.tenants import scope


@contextmanager
def session_of(sessions: sessionmaker[Session], tenant: str) -> Iterator[Session]:
    """Open a session in whose first transaction the tenant of this name is named; whoever asks commits."""
    with sessions() as session:
        scope.set_tenant(session, tenant_id(tenant))
        yield session
