"""Tenants that the store learns of, with a bound on how many. The caller commits."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service.store.identity import tenant_id
from service.store.tenants import row_security, scope
from service.store.tenants.tables import Tenant

MOST: Final = 1_000
"""Of tenants. Names come from the stream: whoever can write to that must not fill the store with them."""
_LOCK: Final = 5_873_146_023


class OpenStoreError(ValueError):
    """Nothing would keep a new tenant's rows from the others; the message names the fix."""


class TooManyTenantsError(ValueError):
    """The store has as many tenants as it takes unasked; the message names the fix."""


def use_tenant(session: Session, name: str) -> None:
    """Let the transaction be about this tenant, until it ends; insert him unless he is there.

    Raises TooManyTenantsError when he would be one more than `MOST`, and OpenStoreError while a table has
    no row-level security.
    """
    tenant = tenant_id(name)
    if not _is_known(session, name):
        unprotected = row_security.list_open(session.connection())
        if unprotected:
            raise OpenStoreError(
                f"tenant {name!r} is not in the store, whose table {unprotected[0]} has no row-level"
                " security, so every key would read his rows; run `subtext migrate`, and what it says that"
                " an administrator has to run"
            )
        # Two at once would both find room for one more.
        session.execute(select(func.pg_advisory_xact_lock(_LOCK)))
        if not _is_known(session, name) and len(list_names(session)) >= MOST:
            raise TooManyTenantsError(
                f"tenant {name!r} is not in the store, which has {MOST} and takes no more of the stream:"
                f" make it with `subtext tenant create {name}` if it is one of yours"
            )
        session.execute(insert(Tenant).values(id=tenant, name=name).on_conflict_do_nothing())
    scope.set_tenant(session, tenant)


def list_names(session: Session) -> Sequence[str]:
    """Return the names of all tenants, whichever the transaction is about."""
    return session.scalars(select(Tenant.name).order_by(Tenant.name)).all()


def _is_known(session: Session, name: str) -> bool:
    return session.scalar(select(Tenant.id).where(Tenant.id == tenant_id(name))) is not None
