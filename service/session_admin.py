"""What `subtext session` does in the database."""

import argparse
import datetime as dt
import sys
import uuid
from collections.abc import Sequence

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from service import auth
from service.store import engine, keys
from service.store.access.operator import os_user
from service.store.access.tables import Action, SubjectKind
from service.store.access.write import Entry, Subjects, add_entry
from service.store.people import sessions as people
from service.store.people.tables import End, LoginSession
from service.store.tables import ApiKey
from service.store.tenants import admin as tenants
from service.store.tenants import scope


def run(url: str, arguments: argparse.Namespace) -> int:
    """Run the chosen action in one transaction and return the exit status."""
    database = engine.create_engine(url, application_name="subtext-session")
    now = dt.datetime.now(dt.UTC)
    try:
        with engine.session_factory(database).begin() as session:
            if arguments.action == "list":
                living_at = None if arguments.all else now
                output = "".join(_lines(session, people.list_sessions(session, living_at=living_at), now))
                ended: Sequence[LoginSession] | None = None
            else:
                ended = _revoke(session, arguments, now)
                output = "".join(f"revoked {one.id}\n" for one in ended)
    except engine.UnusableDatabaseError as error:
        sys.stderr.write(f"subtext session: {error}\n")
        return 2
    except SQLAlchemyError as error:
        sys.stderr.write(
            f"subtext session: {type(error).__name__}: {error}\nIs the database migrated? subtext migrate\n"
        )
        return 1
    finally:
        database.dispose()
    sys.stdout.write(output)
    if ended is not None and not ended:
        sys.stderr.write("subtext session: there is no such session that could be revoked\n")
        return 1
    return 0


def _revoke(session: Session, arguments: argparse.Namespace, now: dt.datetime) -> Sequence[LoginSession]:
    ended = people.end_sessions(
        session, now, End.REVOKED, ids=list(arguments.id or ()), person=arguments.person
    )
    for one in ended:
        scope.set_tenant(session, one.tenant_id)
        add_entry(
            session,
            Entry(
                action=Action.SESSION_CHANGE,
                operation="session revoke",
                os_user=os_user(),
                subjects=Subjects(kind=SubjectKind.SESSION, ids=[one.id]),
            ),
        )
    return ended


def _lines(session: Session, found: Sequence[LoginSession], now: dt.datetime) -> list[str]:
    names = {tenant.id: tenant.name for tenant in tenants.list_tenants(session)}
    of_keys = {key.id: key for key in keys.list_keys(session)}
    return [_line(one, None if one.key_id is None else of_keys[one.key_id], names, now) for one in found]


def _line(one: LoginSession, key: ApiKey | None, tenants: dict[uuid.UUID, str], now: dt.datetime) -> str:
    state = auth.session_state_of(one, now)
    if key is not None and state == "valid":
        state = auth.state_of(key, now)
    scopes, models = (one.scopes, one.models) if key is None else (key.scopes, key.models)
    whose = f"{one.person!r} of {one.issuer}" if key is None else f"key {key.id} {key.name!r}"
    seen = one.last_seen_at or one.created_at
    return (
        f"{one.id}  {state:<7}  since {one.created_at:%Y-%m-%d %H:%M}  seen {seen:%Y-%m-%d %H:%M}"
        f"  expires {one.expires_at:%Y-%m-%d %H:%M}  {tenants[one.tenant_id]}"
        f"  {'all models' if models is None else 'models ' + ','.join(models)}"
        f"  {','.join(scopes)}  {whose}\n"
    )
