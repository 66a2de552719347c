"""Tenants as their administrator knows them, by name. The caller commits."""

import re

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.store.identity import tenant_id
from service.store.tenants import row_security
from service.store.tenants.tables import NAME_PATTERN, OBJECTION_HOURS, Tenant


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


def set_objection_hours(session: Session, name: str, hours: int) -> None:
    """Let removals that are asked for from now on wait for so long; TenantError for what cannot be."""
    if hours not in OBJECTION_HOURS:
        least, most = OBJECTION_HOURS[0], OBJECTION_HOURS[-1]
        raise TenantError(
            f"hours: {hours} is not {least} to {most}; somebody has to have time to object, and an erasure"
            " has to be done in 30 days"
        )
    found = get_tenant(session, name)
    if found is None:
        raise TenantError(f"name: there is no tenant {name!r}; see `subtext tenant list`")
    found.objection_hours = hours


def get_tenant(session: Session, name: str) -> Tenant | None:
    """Return the tenant of this name."""
    return session.get(Tenant, tenant_id(name))


def list_tenants(session: Session) -> list[Tenant]:
    """Return all tenants by name."""
    return list(session.scalars(select(Tenant).order_by(Tenant.name)))


def is_there(session: Session, name: str) -> bool:
    """Tell whether there is a tenant of this name, also to a reader, who may not ask for names."""
    return session.scalar(select(Tenant.id).where(Tenant.id == tenant_id(name))) is not None
