"""Tenants as their administrator knows them, by name. The caller commits."""

import re

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.store.identity import tenant_id
from service.store.tenants import row_security
from service.store.tenants.tables import NAME_PATTERN, Tenant


class TenantError(ValueError):
    """A tenant cannot be created; the message names the field and the fix."""


def add_tenant(session: Session, name: str) -> Tenant:
    """Add a tenant; TenantError when the name is none, or nothing would keep its rows from the others."""
    if re.fullmatch(NAME_PATTERN, name) is None or name.endswith("\n"):
        raise TenantError(f"name: {name!r} is not 1 to 63 of a-z, 0-9 and -, with no - at its start")
    unprotected = row_security.list_open(session.connection())
    if unprotected:
        raise TenantError(
            f"name: table {unprotected[0]} has no row-level security, so every key would read every tenant;"
            " run `subtext migrate`, and what it says that an administrator has to run"
        )
    if get_tenant(session, name) is not None:
        raise TenantError(f"name: there is a tenant {name!r} already")
    made = Tenant(id=tenant_id(name), name=name)
    session.add(made)
    session.flush()
    return made


def get_tenant(session: Session, name: str) -> Tenant | None:
    """Return the tenant of this name."""
    return session.get(Tenant, tenant_id(name))


def list_tenants(session: Session) -> list[Tenant]:
    """Return all tenants by name."""
    return list(session.scalars(select(Tenant).order_by(Tenant.name)))
