"""What the operations depend on: the process's resources, a reading session, an authenticated caller."""

import datetime as dt
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Final

import structlog
from fastapi import Depends, Request, Security
from fastapi.security import (
    APIKeyCookie,
    APIKeyHeader,
    HTTPAuthorizationCredentials,
    HTTPBearer,
    SecurityScopes,
)
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from service import auth
from service.api.access.denials import Denial, Denials
from service.api.caller import Asker, caller_of, check_living, find_by_secret, find_by_token
from service.api.caller import Caller as Caller  # noqa: PLC0414  # routes know it from here
from service.api.live.hub import Hub
from service.api.live.look import finder
from service.api.readiness import Finding, readiness
from service.errors import FieldError, ProblemError, invalid_input
from service.metrics import Metrics
from service.sign_in.cookies import SESSION_COOKIE
from service.sign_in.issuer import Issuer
from service.sign_in.origin import SAFE_METHODS, is_own, origin_of
from service.sign_in.plan import SignInPlan
from service.store import keys
from service.store.access.tables import Action, Result
from service.store.access.write import Entry, add_entry
from service.store.people import sessions as people
from service.store.remembered import Remembered
from service.store.tenants import scope

_log: Final = structlog.get_logger(__name__)
_LAST_USED_EVERY: Final = dt.timedelta(minutes=1)
_MAX_SECRET_LENGTH: Final = 256


class Writes:
    """Whether to try a write: after one that failed, none for a minute.

    A standby refuses every write, and with each refusal its connections are given up.
    """

    def __init__(self) -> None:
        self._next: dt.datetime | None = None

    def may_try(self, now: dt.datetime) -> bool:
        """Tell whether the last failure is long enough ago."""
        return self._next is None or now >= self._next

    def failed(self, now: dt.datetime) -> None:
        """Remember a failure."""
        self._next = now + _LAST_USED_EVERY


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What lives as long as the process; opened and closed by whoever built the application."""

    engine: Engine
    sessions: sessionmaker[Session]
    metrics: Metrics
    plan: SignInPlan = field(default_factory=SignInPlan)
    clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC)
    exports: Path | None = None
    """The folder of exports' files; None: there are no exports here."""
    subject_secret: bytes | None = field(default=None, repr=False)
    """What subject keys are made with; None: this service makes none."""
    grafana_url: str = ""
    """Where the console sends people for time series; empty: nowhere."""
    writes: Writes = field(default_factory=Writes)
    denials: Denials = field(default_factory=Denials)
    issuer: Issuer | None = field(init=False)
    readiness: Remembered[dict[str, Finding]] = field(init=False)
    live: Hub = field(init=False)
    """Whoever serves the application closes it, so that no stream keeps the process."""

    def __post_init__(self) -> None:
        """Look at what the engine leads to, and to whoever says who people are."""
        people = self.plan.people
        object.__setattr__(self, "issuer", None if people is None else Issuer(people.client))
        object.__setattr__(self, "readiness", readiness(self.engine))
        object.__setattr__(self, "live", Hub(finder(self.sessions)))


def resources(request: Request) -> Resources:
    """Return the process's resources."""
    found = request.app.state.resources
    if not isinstance(found, Resources):
        raise TypeError("the application was built without resources")
    return found


async def _held(request: Request) -> Resources:
    # Async, as every dependency that waits for nothing: else it would be handed to a thread.
    return resources(request)


Held = Annotated[Resources, Depends(_held)]


@contextmanager
def reading(held: Resources, caller: Caller) -> Iterator[Session]:
    """Open one snapshot for all queries of one answer, which meets only what the caller may read.

    Operations open it themselves instead of depending on it: a dependency would hold its connection
    while the answer waits for a thread, and threads that wait for connections could then starve it.
    """
    with held.sessions() as session:
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        scope.enter(session, caller.reach)
        yield session


@contextmanager
def writing(held: Resources, caller: Caller) -> Iterator[Session]:
    """Open a transaction that meets only what the caller may read; commit it unless something raises."""
    with held.sessions.begin() as session:
        scope.enter(session, caller.reach)
        yield session


_bearer = HTTPBearer(auto_error=False, scheme_name="bearer", description="Authorization: Bearer subtext_…")
_header = APIKeyHeader(
    name="X-API-Key",
    auto_error=False,
    scheme_name="apiKey",
    description="The same secret in a header of its own.",
)
_session_cookie = APIKeyCookie(
    name=SESSION_COOKIE,
    auto_error=False,
    scheme_name="session",
    description="Of a browser that signed in. What changes something has to come from our own pages.",
)


def operation_of(request: Request) -> str:
    """Return the operation's id in the OpenAPI document."""
    return str(request.scope["route"].name)


def authenticate(
    held: Held,
    request: Request,
    required: SecurityScopes,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    header: Annotated[str | None, Depends(_header)],
    _cookie: Annotated[str | None, Depends(_session_cookie)],
) -> Caller:
    """Return the caller, or raise the 401 or 403 that says what is missing. A key goes before a cookie.

    What a known key or session is denied is in the access log; what an unknown one is, has no owner and is
    counted.
    """
    now = held.clock()
    asker = None
    try:
        secret, token = _given(held, request, bearer.credentials if bearer else header)
        with held.sessions() as session:
            asker = find_by_secret(session, secret) if token is None else find_by_token(session, token)
        asker = check_living(asker, secret, token, now)
        if token is not None:
            _check_origin(held, request)
        caller = _used(held, asker, now)
        auth.check_scopes(caller.scopes, required.scopes, "key" if token is None else "session")
    except auth.AuthenticationError as error:
        held.metrics.observe_authentication_failure(error.code)
        _log_denial(held, request, asker, error.code, now)
        raise _unauthorized(error) from error
    except auth.ScopeError as error:
        held.metrics.observe_authentication_failure("missing_scope")
        _log_denial(held, request, asker, "missing_scope", now)
        raise _forbidden(error) from error
    except CrossOriginError as error:
        held.metrics.observe_authentication_failure("cross_origin")
        _log_denial(held, request, asker, "cross_origin", now)
        raise ProblemError(HTTPStatus.FORBIDDEN, "cross_origin", str(error)) from error
    return caller


def _given(held: Resources, request: Request, secret: str | None) -> tuple[str, str | None]:
    """Return the secret of a key, and the token of a session, which is None where a key was given."""
    cookies = held.plan.cookies
    token = None if secret else cookies.read(request, cookies.session)
    if not secret and not token:
        raise auth.AuthenticationError(
            "missing_key",
            "send an API key as Authorization: Bearer KEY or as X-API-Key: KEY, or sign in for a session",
        )
    if len(secret or token or "") > _MAX_SECRET_LENGTH:
        raise auth.AuthenticationError(
            "unknown_key" if secret else "unknown_session", "this is longer than any API key or session"
        )
    return secret or "", token or None


def scopes_of_session(request: Request) -> Sequence[str]:
    """Return what the browser's session may; nothing without a living one or without a database.

    It grants nothing and so notes nothing: the page only learns by it what it may ask for.
    """
    held = resources(request)
    token = held.plan.cookies.read(request, held.plan.cookies.session)
    if not token or len(token) > _MAX_SECRET_LENGTH:
        return ()
    try:
        with held.sessions() as session:
            asker = find_by_token(session, token)
        return sorted(caller_of(check_living(asker, None, token, held.clock())).scopes)
    except (auth.AuthenticationError, SQLAlchemyError):
        return ()


class CrossOriginError(Exception):
    """A page that is not ours would change something with somebody's session."""

    def __init__(self) -> None:
        super().__init__(
            "with a session, only pages of this service may change something: the request needs"
            " Sec-Fetch-Site: same-origin, or Origin with the address of this service"
        )


def _check_origin(held: Resources, request: Request) -> None:
    if request.method in SAFE_METHODS:
        return
    own = held.plan.origin or origin_of(str(request.base_url))
    if not is_own(request.headers.get("sec-fetch-site"), request.headers.get("origin"), own):
        raise CrossOriginError


def _used(held: Resources, asker: Asker, now: dt.datetime) -> Caller:
    """Return the caller and record the use, where the database takes it."""
    key, found = asker.key, asker.session
    last = found.last_seen_at if found is not None else key.last_used_at if key is not None else now
    if last is None or last < now - _LAST_USED_EVERY:
        _mark_used(held, asker, now)
    return caller_of(asker)


def _mark_used(held: Resources, asker: Asker, now: dt.datetime) -> None:
    """Record the use of key and session: whoever only reads must not depend on it."""
    if not held.writes.may_try(now):
        return
    try:
        with held.sessions.begin() as session:
            scope.enter(session, scope.Reach(asker.tenant_id))
            if asker.session is not None:
                idle = min(now + held.plan.idle, asker.session.expires_at)
                people.mark_seen(
                    session, asker.session.id, now, idle_expires_at=idle, stale=_LAST_USED_EVERY
                )
            if asker.key is not None:
                keys.mark_used(session, asker.key.id, now, _LAST_USED_EVERY)
    except DBAPIError as error:
        held.writes.failed(now)
        _log.warning("key_use_not_recorded", error_type=type(error).__name__)


def _log_denial(
    held: Resources, request: Request, asker: Asker | None, code: str, now: dt.datetime
) -> None:
    """Enter what a known caller was denied, where the database takes it: it is denied all the same."""
    if asker is None:
        return
    denial = Denial(asker.id, operation_of(request), Result(code))
    is_living = denial.result in {Result.MISSING_SCOPE, Result.CROSS_ORIGIN}
    entry = Entry(
        action=Action.DENY,
        operation=denial.operation,
        status=HTTPStatus.FORBIDDEN if is_living else HTTPStatus.UNAUTHORIZED,
        result=denial.result,
        **asker.names,
    )
    log_denial(held, denial, entry, asker.tenant_id, now)


def log_denial(held: Resources, denial: Denial, entry: Entry, tenant: uuid.UUID, now: dt.datetime) -> None:
    """Add the entry unless one like it is of the last minute, where the database takes it."""
    suppressed = held.denials.begin(denial, now)
    if suppressed is None:
        return
    try:
        if held.writes.may_try(now):
            with held.sessions.begin() as session:
                scope.enter(session, scope.Reach(tenant))
                add_entry(session, replace(entry, suppressed=suppressed))
            return
    except SQLAlchemyError as error:
        held.writes.failed(now)
        _log.warning("denial_not_logged", error_type=type(error).__name__)
    held.denials.undo(denial, suppressed)
    held.metrics.observe_access_not_logged(entry.action)


def require(held: Resources, operation: str, caller: Caller, scopes: Sequence[str]) -> None:
    """Raise the 403 unless the caller has these scopes too, which only what was asked for tells.

    The denial is entered in the access log, as all of `authenticate` are.
    """
    try:
        auth.check_scopes(caller.scopes, scopes, "key" if caller.session_id is None else "session")
    except auth.ScopeError as error:
        enter_denial(held, operation, caller)
        raise _forbidden(error) from error


def enter_denial(held: Resources, operation: str, caller: Caller) -> None:
    """Enter in the access log that the caller may not do what it asked for."""
    held.metrics.observe_authentication_failure("missing_scope")
    denial = Denial(caller.session_id or caller.identity, operation, Result.MISSING_SCOPE)
    entry = Entry(
        action=Action.DENY,
        operation=operation,
        status=HTTPStatus.FORBIDDEN,
        result=denial.result,
        **caller.names,
    )
    log_denial(held, denial, entry, caller.reach.tenant, held.clock())


def _unauthorized(error: auth.AuthenticationError) -> ProblemError:
    challenge = 'Bearer realm="subtext"'
    if error.code != "missing_key":
        challenge += f', error="invalid_token", error_description="{error.code}"'
    return ProblemError(
        HTTPStatus.UNAUTHORIZED, error.code, str(error), headers={"WWW-Authenticate": challenge}
    )


def _forbidden(error: auth.ScopeError) -> ProblemError:
    challenge = f'Bearer realm="subtext", error="insufficient_scope", scope="{" ".join(error.missing)}"'
    return ProblemError(
        HTTPStatus.FORBIDDEN, "missing_scope", str(error), headers={"WWW-Authenticate": challenge}
    )


async def refuse_repeated_parameters(request: Request) -> None:
    """Raise 422 when a query parameter stands twice: only one of its values could be meant."""
    names = [name for name, _ in request.query_params.multi_items()]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise invalid_input(
            [
                FieldError(location="query", field=name, code="repeated", message="give it once")
                for name in repeated
            ]
        )


SignedIn = Annotated[Caller, Security(authenticate)]
"""Whoever it is."""
ReadsExplanations = Annotated[Caller, Security(authenticate, scopes=[auth.Scope.EXPLANATIONS_READ])]
ReadsFlags = Annotated[Caller, Security(authenticate, scopes=[auth.Scope.FLAGS_READ])]
Triages = Annotated[
    # What a transition answers is the whole incident, with its flags.
    Caller, Security(authenticate, scopes=[auth.Scope.FLAGS_READ, auth.Scope.INCIDENTS_TRIAGE])
]
ReadsAccess = Annotated[Caller, Security(authenticate, scopes=[auth.Scope.AUDIT_READ])]
ReadsHolds = Annotated[Caller, Security(authenticate, scopes=[auth.Scope.HOLDS_READ])]
WritesHolds = Annotated[
    # What a change answers is the whole hold.
    Caller,
    Security(authenticate, scopes=[auth.Scope.HOLDS_READ, auth.Scope.HOLDS_WRITE]),
]
ReadsKeys = Annotated[Caller, Security(authenticate, scopes=[auth.Scope.KEYS_READ])]
WritesKeys = Annotated[
    # What a change answers is the key.
    Caller,
    Security(authenticate, scopes=[auth.Scope.KEYS_READ, auth.Scope.KEYS_WRITE]),
]
WritesRetention = Annotated[
    Caller, Security(authenticate, scopes=[auth.Scope.COVERAGE_READ, auth.Scope.RETENTION_WRITE])
]
Exports = Annotated[Caller, Security(authenticate, scopes=[auth.Scope.EXPORTS_CREATE])]
ReadsErasures = Annotated[Caller, Security(authenticate, scopes=[auth.Scope.ERASURES_READ])]
AsksForErasures = Annotated[Caller, Security(authenticate, scopes=[auth.Scope.ERASURES_WRITE])]
ReadsCoverage = Annotated[Caller, Security(authenticate, scopes=[auth.Scope.COVERAGE_READ])]
Compares = Annotated[
    Caller, Security(authenticate, scopes=[auth.Scope.COVERAGE_READ, auth.Scope.FLAGS_READ])
]
ReadsRequests = Annotated[
    Caller, Security(authenticate, scopes=[auth.Scope.EXPLANATIONS_READ, auth.Scope.FLAGS_READ])
]
ReadsSubjects = Annotated[
    # Who read a person's data is part of the answer.
    Caller,
    Security(
        authenticate,
        scopes=[auth.Scope.EXPLANATIONS_READ, auth.Scope.FLAGS_READ, auth.Scope.AUDIT_READ],
    ),
]
