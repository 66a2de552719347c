"""What the operations depend on: the process's resources, a reading session, an authenticated caller."""

import datetime as dt
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Annotated, Final

import structlog
from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from service import auth
from service.api.access.denials import Denial, Denials
from service.api.readiness import Finding, readiness
from service.errors import FieldError, ProblemError, invalid_input
from service.metrics import Metrics
from service.store import keys
from service.store.access.tables import Action, Result
from service.store.access.write import Entry, add_entry
from service.store.remembered import Remembered
from service.store.tables import ApiKey
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
    writes: Writes = field(default_factory=Writes)
    denials: Denials = field(default_factory=Denials)
    readiness: Remembered[dict[str, Finding]] = field(init=False)

    def __post_init__(self) -> None:
        """Look at what the engine leads to."""
        object.__setattr__(self, "readiness", readiness(self.engine))


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks, and what the key grants."""

    scopes: frozenset[str]
    key_id: uuid.UUID
    key_name: str
    reach: scope.Reach
    """Whose rows the key reads."""

    @property
    def may_read_text(self) -> bool:
        """Whether explanation text and tokens may be shown."""
        return auth.allows(self.scopes, auth.Scope.EXPLANATIONS_READ_TEXT)

    def listing(self, name: str) -> str:
        """Return the name of a listing as it is the caller's: a cursor is of no use to another tenant."""
        tenant = self.reach.tenant
        return name if tenant == scope.DEFAULT_ID else f"{name} of {tenant}"


def resources(request: Request) -> Resources:
    """Return the process's resources."""
    found = request.app.state.resources
    if not isinstance(found, Resources):
        raise TypeError("the application was built without resources")
    return found


Held = Annotated[Resources, Depends(resources)]


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


def operation_of(request: Request) -> str:
    """Return the operation's id in the OpenAPI document."""
    return str(request.scope["route"].name)


def authenticate(
    held: Held,
    request: Request,
    required: SecurityScopes,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    header: Annotated[str | None, Depends(_header)],
) -> Caller:
    """Return the caller, or raise the 401 or 403 that says what is missing.

    What a known key is denied is in the access log; what an unknown one is, has no owner and is counted.
    """
    now = dt.datetime.now(dt.UTC)
    key = None
    try:
        secret = _secret(bearer.credentials if bearer else header)
        digest = auth.digest(secret)
        with held.sessions() as session:
            scope.look_for_key(session, digest)
            key = keys.get_key(session, digest)
        caller = _caller(held, auth.living(key, secret, now), now)
        auth.check_scopes(caller.scopes, required.scopes)
    except auth.AuthenticationError as error:
        held.metrics.observe_authentication_failure(error.code)
        _log_denial(held, request, key, error.code, now)
        raise _unauthorized(error) from error
    except auth.ScopeError as error:
        held.metrics.observe_authentication_failure("missing_scope")
        _log_denial(held, request, key, "missing_scope", now)
        raise _forbidden(error) from error
    return caller


def _secret(given: str | None) -> str:
    if not given:
        raise auth.AuthenticationError(
            "missing_key", "send an API key as Authorization: Bearer KEY or as X-API-Key: KEY"
        )
    if len(given) > _MAX_SECRET_LENGTH:
        raise auth.AuthenticationError("unknown_key", "this is longer than any API key")
    return given


def _caller(held: Resources, key: ApiKey, now: dt.datetime) -> Caller:
    if key.last_used_at is None or key.last_used_at < now - _LAST_USED_EVERY:
        _mark_used(held, key, now)
    reach = scope.Reach(key.tenant_id, None if key.models is None else tuple(key.models))
    return Caller(scopes=frozenset(key.scopes), key_id=key.id, key_name=key.name, reach=reach)


def _mark_used(held: Resources, key: ApiKey, now: dt.datetime) -> None:
    """Record the use of a key where the database takes it: whoever only reads must not depend on it."""
    if not held.writes.may_try(now):
        return
    try:
        with held.sessions.begin() as session:
            scope.enter(session, scope.Reach(key.tenant_id))
            keys.mark_used(session, key.id, now, _LAST_USED_EVERY)
    except DBAPIError as error:
        held.writes.failed(now)
        _log.warning("key_use_not_recorded", error_type=type(error).__name__)


def _log_denial(held: Resources, request: Request, key: ApiKey | None, code: str, now: dt.datetime) -> None:
    """Enter what a known key was denied, where the database takes it: it is denied all the same."""
    if key is None:
        return
    denial = Denial(key.id, operation_of(request), Result(code))
    suppressed = held.denials.begin(denial, now)
    if suppressed is None:
        return
    is_living = denial.result is Result.MISSING_SCOPE
    entry = Entry(
        action=Action.DENY,
        operation=denial.operation,
        key_id=denial.key_id,
        key_name=key.name,
        status=HTTPStatus.FORBIDDEN if is_living else HTTPStatus.UNAUTHORIZED,
        result=denial.result,
        suppressed=suppressed,
    )
    try:
        if held.writes.may_try(now):
            with held.sessions.begin() as session:
                scope.enter(session, scope.Reach(key.tenant_id))
                add_entry(session, entry)
            return
    except SQLAlchemyError as error:
        held.writes.failed(now)
        _log.warning("denial_not_logged", error_type=type(error).__name__)
    held.denials.undo(denial, suppressed)
    held.metrics.observe_access_not_logged(Action.DENY)


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


def refuse_repeated_parameters(request: Request) -> None:
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


ReadsExplanations = Annotated[Caller, Security(authenticate, scopes=[auth.Scope.EXPLANATIONS_READ])]
ReadsFlags = Annotated[Caller, Security(authenticate, scopes=[auth.Scope.FLAGS_READ])]
Triages = Annotated[
    # What a transition answers is the whole incident, with its flags.
    Caller, Security(authenticate, scopes=[auth.Scope.FLAGS_READ, auth.Scope.INCIDENTS_TRIAGE])
]
ReadsAccess = Annotated[Caller, Security(authenticate, scopes=[auth.Scope.AUDIT_READ])]
ReadsErasures = Annotated[Caller, Security(authenticate, scopes=[auth.Scope.ERASURES_READ])]
AsksForErasures = Annotated[Caller, Security(authenticate, scopes=[auth.Scope.ERASURES_WRITE])]
ReadsCoverage = Annotated[Caller, Security(authenticate, scopes=[auth.Scope.COVERAGE_READ])]
ReadsRequests = Annotated[
    Caller, Security(authenticate, scopes=[auth.Scope.EXPLANATIONS_READ, auth.Scope.FLAGS_READ])
]
