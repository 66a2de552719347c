"""What ``subtext key`` does in the database. A secret leaves by stdout once and is kept nowhere."""

import argparse
import datetime as dt
import sys
import uuid

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from service import auth
from service.store import engine, keys
from service.store.tables import ApiKey


def run(url: str, arguments: argparse.Namespace) -> int:
    """Run the chosen action in one transaction and return the exit status."""
    database = engine.create_engine(url, application_name="subtext-key")
    try:
        with engine.session_factory(database).begin() as session:
            status, output = _act(session, arguments, dt.datetime.now(dt.UTC))
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


def _act(session: Session, arguments: argparse.Namespace, now: dt.datetime) -> tuple[int, str]:
    match arguments.action:
        case "create":
            return 0, _create(session, arguments, now)
        case "revoke":
            return _revoke(session, arguments.id, now)
        case _:
            return 0, "".join(_line(key, now) for key in keys.list_keys(session))


def _create(session: Session, arguments: argparse.Namespace, now: dt.datetime) -> str:
    secret = auth.new_secret()
    days = arguments.expires_in_days
    key = keys.add_key(
        session,
        name=arguments.name,
        secret_sha256=auth.digest(secret),
        scopes=sorted(set(arguments.scope)),
        expires_at=now + dt.timedelta(days=days) if days else None,
    )
    sys.stderr.write(f"created key {key.id}; the secret on stdout is shown only now\n")
    return f"{secret}\n"


def _revoke(session: Session, identity: str, now: dt.datetime) -> tuple[int, str]:
    try:
        parsed = uuid.UUID(identity)
    except ValueError:
        sys.stderr.write(f"subtext key: {identity!r} is not a key id; see: subtext key list\n")
        return 2, ""
    if not keys.revoke_key(session, parsed, now):
        sys.stderr.write(f"subtext key: there is no key {identity} that could be revoked\n")
        return 1, ""
    return 0, f"revoked {parsed}\n"


def _line(key: ApiKey, now: dt.datetime) -> str:
    if key.revoked_at is not None:
        state = "revoked"
    elif key.expires_at is not None and key.expires_at <= now:
        state = "expired"
    else:
        state = "valid"
    used = key.last_used_at.isoformat(timespec="seconds") if key.last_used_at else "never"
    return f"{key.id}  {state:<7}  used {used}  {','.join(key.scopes)}  {key.name!r}\n"
