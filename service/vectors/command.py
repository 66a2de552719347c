"""What `subtext vectors` does: makes, rotates and destroys keys, and deletes what has expired."""

import argparse
import datetime as dt
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from service.settings import SettingsError, VectorSettings, vector_settings
from service.store import engine
from service.store.access.operator import os_user
from service.store.access.tables import Action, SubjectKind
from service.store.access.write import Entry, Subjects, add_entry
from service.store.tenants import admin as tenants
from service.store.tenants import scope
from service.store.tenants.tables import Tenant
from service.store.vectors import keys, sealing
from service.vectors.expiry import expire

_BAD_USE: Final = 2


class _RefusedError(Exception):
    """What was asked for cannot be done; the message names the field and the fix."""


def run(argv: list[str]) -> int:
    """Run the chosen action and return the exit status."""
    options = _parser().parse_args(argv)
    try:
        if options.action == "keygen":
            return _keygen(options.file)
        return _in_store(vector_settings(), options)
    except (SettingsError, _RefusedError, keys.NoKeyError, engine.UnusableDatabaseError, OSError) as error:
        sys.stderr.write(f"subtext vectors: {error}\n")
        return _BAD_USE
    except SQLAlchemyError as error:
        sys.stderr.write(
            f"subtext vectors: {type(error).__name__}: {error}\nIs the database migrated? subtext migrate\n"
        )
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="subtext vectors",
        description="Keys of the vectors that are kept to be read again, in SUBTEXT_DATABASE_URL, whose"
        " login must own the store.",
    )
    actions = parser.add_subparsers(dest="action", required=True)
    keygen = actions.add_parser("keygen", help="make the operator's key, for SUBTEXT_VECTORS_KEY_FILE")
    keygen.add_argument("file", type=Path, help="where to write it; must not be there yet")
    listing = actions.add_parser("list", help="list the tenants' keys, without secrets")
    listing.add_argument("--tenant", help="default: all")
    rotate = actions.add_parser(
        "rotate", help="seal a tenant's new vectors under a new key; what is kept stays readable"
    )
    rotate.add_argument("--tenant", required=True)
    destroy = actions.add_parser(
        "destroy", help="destroy a tenant's keys, so that nobody reads any of his kept vectors any more"
    )
    destroy.add_argument("--tenant", required=True)
    actions.add_parser("expire", help="delete the vectors whose days are over")
    return parser


def _keygen(file: Path) -> int:
    key = sealing.generate_file(file)
    sys.stdout.write(f"wrote key {key.id} to {file}; keep a copy: without it no kept vector can be read\n")
    return 0


def _in_store(settings: VectorSettings, options: argparse.Namespace) -> int:
    actions: dict[str, Callable[[sessionmaker[Session]], str]] = {
        "list": lambda sessions: _list(sessions, options.tenant),
        "rotate": lambda sessions: _rotate(sessions, options.tenant, settings.wrapping),
        "destroy": lambda sessions: _destroy(sessions, options.tenant),
        "expire": _expire,
    }
    database = engine.create_engine(settings.database, application_name="subtext-vectors")
    try:
        output = actions[options.action](engine.session_factory(database))
    finally:
        database.dispose()
    sys.stdout.write(output)
    return 0


def _list(sessions: sessionmaker[Session], name: str | None) -> str:
    with sessions() as session:
        whose = None if name is None else _tenant(session, name).id
        names = {tenant.id: tenant.name for tenant in tenants.list_tenants(session)}
        return "".join(
            f"{key.id}  {keys.state_of(key):<9}  since {key.created_at:%Y-%m-%d}"
            f"  wrapped by {key.wrapped_by}  {names.get(key.tenant_id, key.tenant_id)}\n"
            for key in keys.list_keys(session, whose)
        )


def _rotate(sessions: sessionmaker[Session], name: str, wrapping: sealing.WrappingKey) -> str:
    with sessions.begin() as session:
        tenant = _enter(session, name)
        made = keys.rotate(session, tenant.id, wrapping)
        _log_change(session, "vectors rotate", [made], {"wrapped_by": wrapping.id})
    return f"tenant {name} seals new vectors under key {made}\n"


def _destroy(sessions: sessionmaker[Session], name: str) -> str:
    with sessions.begin() as session:
        tenant = _enter(session, name)
        destroyed = keys.destroy(session, tenant.id)
        if not destroyed:
            raise _RefusedError(f"--tenant: {name!r} has no key to destroy; see: subtext vectors list")
        _log_change(session, "vectors destroy", destroyed, {"keys": len(destroyed)})
    return (
        f"destroyed {len(destroyed)} keys of tenant {name}: nothing opens what they sealed, and no vector"
        " of his is kept until: subtext vectors rotate\n"
    )


def _expire(sessions: sessionmaker[Session]) -> str:
    return f"deleted {expire(sessions, dt.datetime.now(dt.UTC))} vectors\n"


def _tenant(session: Session, name: str) -> Tenant:
    tenant = tenants.get_tenant(session, name)
    if tenant is None:
        raise _RefusedError(f"--tenant: there is no tenant {name!r}; see: subtext tenant list")
    return tenant


def _enter(session: Session, name: str) -> Tenant:
    tenant = _tenant(session, name)
    scope.set_tenant(session, tenant.id)
    return tenant


def _log_change(
    session: Session, command: str, changed: Sequence[UUID], details: Mapping[str, object]
) -> None:
    """Enter the change in the tenant's access log, in its own transaction: none without the other."""
    subjects = Subjects(kind=SubjectKind.VECTOR_KEY, ids=changed)
    add_entry(
        session,
        Entry(
            action=Action.KEY_CHANGE,
            operation=command,
            os_user=os_user(),
            subjects=subjects,
            details=details,
        ),
    )
