"""What ``subtext key`` does in the database. A secret leaves by stdout once and is kept nowhere."""

import argparse
import datetime as dt
import sys
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from service import auth
from service.settings import KeySettings
from service.store import engine, keys
from service.store.access.operator import os_user
from service.store.access.tables import Action, SubjectKind
from service.store.access.write import Entry, Subjects, add_entry
from service.store.tables import ApiKey
from service.store.tenants import admin as tenants
from service.store.tenants import row_security, scope


class NewKey(NamedTuple):
    """A key that was just made."""

    id: uuid.UUID
    secret: str


def run(settings: KeySettings, arguments: argparse.Namespace) -> int:
    """Run the chosen action in one transaction and return the exit status."""
    database = engine.create_engine(settings.database, application_name="subtext-key")
    lifetime = _lifetime(arguments, settings.key_lifetime_days)
    try:
        with engine.session_factory(database).begin() as session:
            status, output = _act(session, arguments, lifetime, dt.datetime.now(dt.UTC))
    except engine.UnusableDatabaseError as error:
        sys.stderr.write(f"subtext key: {error}\n")
        return 2
    except SQLAlchemyError as error:
        sys.stderr.write(
            f"subtext key: {type(error).__name__}: {error}\nIs the database migrated? subtext migrate\n"
        )
        return 1
    finally:
        database.dispose()
    # Only after the commit: a printed secret must work.
    sys.stdout.write(output)
    return status


def _lifetime(arguments: argparse.Namespace, default_days: float) -> dt.timedelta | None:
    """Return how long a new key works; None for ever, and for an action that makes none."""
    if getattr(arguments, "never_expires", True):
        return None
    return dt.timedelta(days=arguments.expires_in_days or default_days)


class _Rights(NamedTuple):
    """What a key may do, and whose rows it reads."""

    scopes: Sequence[str]
    role: str | None
    tenant_id: uuid.UUID
    models: Sequence[str] | None


def _act(
    session: Session, arguments: argparse.Namespace, lifetime: dt.timedelta | None, now: dt.datetime
) -> tuple[int, str]:
    expires_at = None if lifetime is None else now + lifetime
    match arguments.action:
        case "create":
            return _create_anew(session, arguments, expires_at)
        case "rotate":
            until = now + dt.timedelta(days=arguments.overlap_days)
            return _rotate(session, arguments.id, expires_at, until, now)
        case "revoke":
            return _revoke(session, arguments.id, now)
        case _:
            return 0, _listed(session, now, orphans_only=arguments.orphans)


def _create_anew(
    session: Session, arguments: argparse.Namespace, expires_at: dt.datetime | None
) -> tuple[int, str]:
    tenant = tenants.get_tenant(session, arguments.tenant)
    if tenant is None:
        name = arguments.tenant
        sys.stderr.write(
            f"subtext key: --tenant: there is no tenant {name!r}; create it: subtext tenant create {name}\n"
        )
        return 2, ""
    unprotected = row_security.list_open(session.connection()) if arguments.model else []
    if unprotected:
        sys.stderr.write(
            f"subtext key: --model: table {unprotected[0]} has no row-level security, so the key would read"
            " every model; run `subtext migrate`, and what it says that an administrator has to run\n"
        )
        return 2, ""
    scopes = arguments.scope or auth.SCOPES[auth.Role(arguments.role)]
    rights = _Rights(
        scopes=sorted(set(map(str, scopes))),
        role=arguments.role,
        tenant_id=tenant.id,
        models=None if arguments.model is None else sorted(set(arguments.model)),
    )
    made = _create(session, arguments.name, rights, expires_at)
    _log_change(session, "key create", [made.id], _granted(rights, expires_at), tenant.id)
    return 0, f"{made.secret}\n"


def _create(session: Session, name: str, rights: _Rights, expires_at: dt.datetime | None) -> NewKey:
    secret = auth.new_secret()
    key = keys.add_key(
        session,
        name=name,
        secret_sha256=auth.digest(secret),
        expires_at=expires_at,
        **rights._asdict(),
    )
    sys.stderr.write(
        f"created key {key.id}, which expires {_shown(expires_at)};"
        " the secret on stdout is shown only now\n"
    )
    return NewKey(key.id, secret)


def _rotate(
    session: Session,
    identity: str,
    expires_at: dt.datetime | None,
    until: dt.datetime,
    now: dt.datetime,
) -> tuple[int, str]:
    parsed = _parsed(identity)
    if parsed is None:
        return 2, ""
    old = keys.get_key_by_id(session, parsed)
    if old is None or auth.state_of(old, now) != "valid":
        sys.stderr.write(f"subtext key: there is no valid key {identity}; create one: subtext key create\n")
        return 1, ""
    rights = _Rights(scopes=old.scopes, role=old.role, tenant_id=old.tenant_id, models=old.models)
    made = _create(session, old.name, rights, expires_at)
    keys.limit_key(session, parsed, until)
    _log_change(session, "key rotate", [parsed, made.id], _granted(rights, expires_at), old.tenant_id)
    session.refresh(old)
    sys.stderr.write(f"the old key {parsed} works until {_shown(old.expires_at)}\n")
    return 0, f"{made.secret}\n"


def _revoke(session: Session, identity: str, now: dt.datetime) -> tuple[int, str]:
    parsed = _parsed(identity)
    if parsed is None:
        return 2, ""
    if not keys.revoke_key(session, parsed, now):
        sys.stderr.write(f"subtext key: there is no key {identity} that could be revoked\n")
        return 1, ""
    went = [parsed, *keys.list_revoked_with(session, parsed)]
    revoked = keys.get_key_by_id(session, parsed)
    if revoked is not None:
        _log_change(session, "key revoke", went, {}, revoked.tenant_id)
    return 0, "".join(f"revoked {one}\n" for one in went)


def _log_change(
    session: Session,
    command: str,
    changed: Sequence[uuid.UUID],
    details: Mapping[str, Any],
    tenant: uuid.UUID,
) -> None:
    """Enter the change in the tenant's access log, in its own transaction: none without the other."""
    scope.set_tenant(session, tenant)
    subjects = Subjects(kind=SubjectKind.API_KEY, ids=changed)
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


def _granted(rights: _Rights, expires_at: dt.datetime | None) -> Mapping[str, Any]:
    return {
        "role": rights.role,
        "scopes": sorted(set(rights.scopes)),
        "models": rights.models,
        "expires_at": _shown(expires_at),
    }


def _parsed(identity: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(identity)
    except ValueError:
        sys.stderr.write(f"subtext key: {identity!r} is not a key id; see: subtext key list\n")
        return None


def _shown(moment: dt.datetime | None) -> str:
    return "never" if moment is None else moment.isoformat(timespec="seconds")


def _listed(session: Session, now: dt.datetime, *, orphans_only: bool) -> str:
    """Return a line a key; of orphans with the revoked key that each comes from."""
    names = {tenant.id: tenant.name for tenant in tenants.list_tenants(session)}
    if not orphans_only:
        return "".join(_line(key, names[key.tenant_id], now) for key in keys.list_keys(session))
    return "".join(
        f"from {one.maker.id}, revoked {_shown(one.maker.revoked_at)}:"
        f" {_line(one.key, names[one.key.tenant_id], now)}"
        for one in keys.list_orphans(session, now)
    )


def _line(key: ApiKey, tenant: str, now: dt.datetime) -> str:
    models = "all models" if key.models is None else f"models {','.join(key.models)}"
    rights = ",".join(key.scopes) if key.role is None else f"{key.role} ({','.join(key.scopes)})"
    return (
        f"{key.id}  {auth.state_of(key, now):<7}  expires {_shown(key.expires_at)}"
        f"  used {_shown(key.last_used_at)}  {tenant}  {models}  {rights}  {key.name!r}\n"
    )
