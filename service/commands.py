"""The service's commands: parse, build settings, hand over."""

import argparse
import datetime as dt
import sys
import uuid
from pathlib import Path
from typing import Final

from service.auth import Role, Scope
from service.store.identity import DEFAULT_TENANT

_BAD_USE: Final = 2


def service(argv: list[str]) -> int:
    """Serve the REST API until a signal; ``--openapi`` prints its description instead."""
    parser = argparse.ArgumentParser(
        prog="subtext service",
        description="Serve the REST API. Settings: SUBTEXT_DATABASE_URL, SUBTEXT_HTTP_HOST, "
        "SUBTEXT_HTTP_PORT, SUBTEXT_TLS_CERT_FILE, SUBTEXT_TLS_KEY_FILE, SUBTEXT_PLAIN_HTTP, "
        "SUBTEXT_ROOT_PATH, SUBTEXT_DATABASE_POOL_SIZE, SUBTEXT_QUERY_TIMEOUT_SECONDS, "
        "SUBTEXT_PREVALENCE_HOURS, SUBTEXT_PREVALENCE_EVERY_SECONDS, SUBTEXT_PREVALENCE_THRESHOLDS, "
        "SUBTEXT_WEBHOOKS_FILE, SUBTEXT_PUBLIC_URL, SUBTEXT_SESSION_IDLE_MINUTES, SUBTEXT_SESSION_HOURS, "
        "SUBTEXT_SESSION_PLAIN_HTTP, SUBTEXT_OIDC_ISSUER, SUBTEXT_OIDC_CLIENT_ID, "
        "SUBTEXT_OIDC_CLIENT_SECRET_FILE, SUBTEXT_OIDC_REDIRECT_BASE_URL, SUBTEXT_OIDC_GRANTS_FILE, "
        "SUBTEXT_OIDC_GROUPS_CLAIM, SUBTEXT_OIDC_NAME_CLAIM, SUBTEXT_OIDC_SCOPES, "
        "SUBTEXT_OIDC_TIMEOUT_SECONDS, SUBTEXT_OIDC_CA_FILE, SUBTEXT_EXPORT_FOLDER, SUBTEXT_LOG_LEVEL.",
    )
    parser.add_argument("--openapi", action="store_true", help="print the OpenAPI document and exit")
    if parser.parse_args(argv).openapi:
        from service.api.http.openapi import document

        sys.stdout.write(document())
        return 0

    from service.serving import serve
    from service.settings import SettingsError, service_settings
    from service.store.engine import UnusableDatabaseError
    from subtext_sidecar.contract.listening import ListeningError

    try:
        settings = service_settings()
    except SettingsError as error:
        return _refuse("service", error)
    try:
        return serve(settings)
    except (UnusableDatabaseError, ListeningError) as error:
        return _refuse("service", error)


def migrate(argv: list[str]) -> int:
    """Migrate the database to head; ``--check`` only tells whether it is there."""
    parser = argparse.ArgumentParser(
        prog="subtext migrate",
        description="Bring the database at SUBTEXT_DATABASE_URL to the newest schema. Safe to run twice "
        "and from several machines at once.",
    )
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when not at head")
    arguments = parser.parse_args(argv)

    from service.settings import SettingsError, store_settings

    try:
        settings = store_settings()
    except SettingsError as error:
        return _refuse("migrate", error)
    return _migrate(settings.database, only_check=arguments.check)


def _migrate(url: str, *, only_check: bool) -> int:
    from sqlalchemy.exc import SQLAlchemyError

    from service.store import engine, migrate

    database = engine.create_engine(url, application_name="subtext-migrate")
    try:
        advice = None if only_check else migrate.upgrade(url)
        if advice is not None:
            sys.stderr.write(f"subtext migrate: {advice}\n")
        current, head = migrate.current_revision(database), migrate.head_revision()
    except engine.UnusableDatabaseError as error:
        return _refuse("migrate", error)
    except SQLAlchemyError as error:
        sys.stderr.write(f"subtext migrate: {type(error).__name__}: {error}\n")
        return 1
    finally:
        database.dispose()
    sys.stdout.write(f"database at {current or 'nothing'}, head is {head}\n")
    return 0 if current == head else 1


def key(argv: list[str]) -> int:
    """Create, list, rotate or revoke API keys."""
    arguments = _key_parser().parse_args(argv)

    from service import key_admin
    from service.settings import SettingsError, key_settings

    try:
        settings = key_settings()
    except SettingsError as error:
        return _refuse("key", error)
    return key_admin.run(settings, arguments)


def report(argv: list[str]) -> int:
    """Write the post-market-monitoring report of a period as JSON and PDF."""
    parser = argparse.ArgumentParser(
        prog="subtext report",
        description="Write report.json and report.pdf of a period of at most 366 days, from the store at"
        " SUBTEXT_DATABASE_URL; the service's login is enough. Times are UTC unless they say another zone.",
    )
    parser.add_argument("--from", dest="start", type=_time, required=True, help="e.g. 2026-11-01")
    parser.add_argument("--to", dest="end", type=_time, required=True, help="exclusive, e.g. 2026-12-01")
    parser.add_argument("--model", help="served model name; default: all")
    parser.add_argument("--tenant", default=DEFAULT_TENANT, help="default: %(default)s")
    parser.add_argument("--out", type=Path, required=True, help="folder for both files")
    arguments = parser.parse_args(argv)

    from service.report import command
    from service.report.period import Period
    from service.settings import SettingsError, store_settings

    try:
        settings = store_settings()
    except SettingsError as error:
        return _refuse("report", error)
    period = Period(arguments.start, arguments.end, arguments.model)
    return command.run(settings, period, arguments.out, tenant=arguments.tenant)


def erase(argv: list[str]) -> int:
    """Carry out the open requests for erasure."""
    from service.erasure import command

    return command.run(argv)


def _time(text: str) -> dt.datetime:
    try:
        time = dt.datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no day or time such as 2026-11-01") from None
    return time.replace(tzinfo=dt.UTC) if time.tzinfo is None else time.astimezone(dt.UTC)


def _key_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="subtext key",
        description="API keys in SUBTEXT_DATABASE_URL, whose login must own the store. A key works for"
        " SUBTEXT_KEY_LIFETIME_DAYS (90).",
    )
    actions = parser.add_subparsers(dest="action", required=True)
    create = actions.add_parser("create", help="create a key; its secret is printed once, on stdout")
    create.add_argument("--name", required=True, help="who or what will use it")
    rights = create.add_mutually_exclusive_group(required=True)
    rights.add_argument("--role", choices=[str(role) for role in Role], help="the scopes of this work")
    rights.add_argument(
        "--scope", action="append", choices=[str(scope) for scope in Scope], help="repeat for more"
    )
    create.add_argument(
        "--tenant", default=DEFAULT_TENANT, help="whose rows it reads; default: %(default)s"
    )
    create.add_argument(
        "--model",
        action="append",
        help="served name of a model; it then reads of this one alone; repeat for more",
    )
    _add_lifetime(create)
    listed = actions.add_parser("list", help="list keys, without secrets")
    listed.add_argument(
        "--orphans",
        action="store_true",
        help="those alone that work while a key that they come from is revoked",
    )
    rotate = actions.add_parser(
        "rotate", help="create a key that may do the same, and let the old one work a while longer"
    )
    rotate.add_argument("id", help="the old key's id")
    rotate.add_argument(
        "--overlap-days", type=_days, default=7.0, help="for how long the old key works on; default: 7"
    )
    _add_lifetime(rotate)
    revoke = actions.add_parser("revoke", help="revoke a key at once")
    revoke.add_argument("id", help="the id that create and list show")
    return parser


def tenant(argv: list[str]) -> int:
    """Create or list tenants, or say for how long their removals wait."""
    parser = argparse.ArgumentParser(
        prog="subtext tenant",
        description="Tenants in SUBTEXT_DATABASE_URL, whose login must own the store.",
    )
    actions = parser.add_subparsers(dest="action", required=True)
    create = actions.add_parser("create", help="create a tenant; nothing of it is read by another's key")
    create.add_argument("name", help="1 to 63 of a-z, 0-9 and -, not with - at its start")
    actions.add_parser("list", help="list tenants by name")
    wait = actions.add_parser("wait", help="say for how long a removal that somebody asks for waits")
    wait.add_argument("name", help="of the tenant")
    wait.add_argument("hours", type=int, help="1 to 336; 72 unless it was set")
    arguments = parser.parse_args(argv)

    from service import tenant_admin
    from service.settings import SettingsError, key_settings

    try:
        settings = key_settings()
    except SettingsError as error:
        return _refuse("tenant", error)
    return tenant_admin.run(settings.database, arguments)


def session(argv: list[str]) -> int:
    """List or revoke sessions."""
    parser = argparse.ArgumentParser(
        prog="subtext session",
        description="Sessions of people and keys that signed in, in SUBTEXT_DATABASE_URL, whose login must"
        " own the store.",
    )
    actions = parser.add_subparsers(dest="action", required=True)
    shown = actions.add_parser("list", help="list the sessions that work")
    shown.add_argument("--all", action="store_true", help="those that are over as well")
    revoke = actions.add_parser("revoke", help="end sessions at once")
    which = revoke.add_mutually_exclusive_group(required=True)
    which.add_argument("id", nargs="*", default=[], type=_identity, help="ids that list shows")
    which.add_argument("--person", help="all sessions of this person, by the issuer's sub")
    arguments = parser.parse_args(argv)

    from service import session_admin
    from service.settings import SettingsError, key_settings

    try:
        settings = key_settings()
    except SettingsError as error:
        return _refuse("session", error)
    return session_admin.run(settings.database, arguments)


def _identity(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no session's id; see: subtext session list"
        ) from None


def retention(argv: list[str]) -> int:
    """Remove what is beyond its period; exit 1 when a run could not finish."""
    parser = argparse.ArgumentParser(
        prog="subtext retention",
        description="Periods of retention in SUBTEXT_DATABASE_URL, whose login must be one that may erase.",
    )
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("run", help="remove what is beyond its period and under no legal hold; once a day")
    parser.parse_args(argv)

    from service import retention_admin
    from service.settings import SettingsError, key_settings

    try:
        settings = key_settings()
    except SettingsError as error:
        return _refuse("retention", error)
    return retention_admin.run(settings.database)


def _add_lifetime(action: argparse.ArgumentParser) -> None:
    lifetime = action.add_mutually_exclusive_group()
    lifetime.add_argument("--expires-in-days", type=_days, help="default: SUBTEXT_KEY_LIFETIME_DAYS")
    lifetime.add_argument("--never-expires", action="store_true", help="for a key that nobody can rotate")


def _days(text: str) -> float:
    most = 36_500
    try:
        days = float(text)
    except ValueError:
        days = 0.0
    if not 0 < days <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days above 0 and up to {most}")
    return days


def log(argv: list[str]) -> int:
    """Write the evidence log, or make its key."""
    from service.sequencer.command import run

    return run(argv)


def keeper(argv: list[str]) -> int:
    """Run the jobs of the store until a signal."""
    from service.keeper.command import run

    return run(argv)


def timestamp(argv: list[str]) -> int:
    """Have an authority say when the evidence log's checkpoints were there."""
    from service.timestamping import run

    return run(argv)


def verify(argv: list[str]) -> int:
    """Hold a bundle, or the store, against the evidence log's signatures."""
    from service.verifying import run

    return run(argv)


def vectors(argv: list[str]) -> int:
    """Make, rotate and destroy keys of kept vectors, and delete those that expired."""
    from service.vectors.command import run

    return run(argv)


def witness(argv: list[str]) -> int:
    """Cosign the evidence log's checkpoints, or make a witness's key."""
    from service.witnessing import run

    return run(argv)


def _refuse(command: str, error: Exception) -> int:
    sys.stderr.write(f"subtext {command}: {error}\n")
    return _BAD_USE
