"""Signing in by the issuer: the two addresses that a browser is led to, which no client calls by itself."""

import datetime as dt
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Final

import structlog
from fastapi import APIRouter, Depends, Request
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from starlette.responses import RedirectResponse, Response

from service import auth
from service.api.access.denials import Denial
from service.api.deps import Held, Resources, log_denial, operation_of, refuse_repeated_parameters
from service.api.routes.sign_in import begin_session, check_cookies, end_before, new_session, put_token
from service.errors import FieldError, ProblemError, invalid_input
from service.sign_in.attempt import LIFETIME, Attempt
from service.sign_in.grants import Grant, choose, groups_in
from service.sign_in.issuer import CodeRefusedError, Issuer, IssuerUnavailableError
from service.sign_in.origin import local_path
from service.sign_in.plan import PeoplePlan
from service.sign_in.token import TokenError
from service.store.access.tables import Action, Result
from service.store.access.write import Entry
from service.store.identity import tenant_id
from service.store.people.sessions import NewSession
from service.store.tenants import row_security, scope
from service.store.tenants.admin import is_there

_log: Final = structlog.get_logger(__name__)
_AFTERWARDS: Final = "/auth/session"
_MAX_CODE: Final = 4096
_MAX_NAME: Final = 200
_NOBODY: Final = uuid.UUID(int=0)
router = APIRouter(
    prefix="/auth", include_in_schema=False, dependencies=[Depends(refuse_repeated_parameters)]
)


class SignInError(Exception):
    """Nobody is signed in. ``code`` is stable; the message says what to do."""

    def __init__(self, code: str, message: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class _Whose:
    """Whom a sign-in that fails is about, as far as that is known."""

    tenant: uuid.UUID = scope.DEFAULT_ID
    issuer: str | None = None
    person: str | None = None


@router.get("/login")
def begin_sign_in(held: Held, request: Request) -> Response:
    """Send the browser to the issuer; ``next`` is the path of this service to which it then goes."""
    _, issuer = _people(held)
    check_cookies(held, request)
    root = request.scope.get("root_path", "")
    path = local_path(request.query_params.get("next", f"{root}{_AFTERWARDS}"))
    if path is None:
        message = "write a path of this service, as /console"
        raise invalid_input([FieldError(location="query", field="next", code="no_path", message=message)])
    attempt = Attempt.begin(path, held.clock())
    try:
        url = issuer.login_url(attempt)
    except IssuerUnavailableError as error:
        raise _unavailable(error) from error
    answer = RedirectResponse(url, HTTPStatus.FOUND)
    held.plan.cookies.put(answer, held.plan.cookies.login, attempt.cookie, int(LIFETIME.total_seconds()))
    return answer


@router.get("/callback")
def finish_sign_in(held: Held, request: Request) -> Response:
    """Take what the issuer says of who signed in, and begin a session for what his groups may do."""
    people, issuer = _people(held)
    now, token = held.clock(), auth.new_token()
    whose = _Whose()
    try:
        attempt = _attempt(held, request, now)
        claims = _claims(issuer, request, attempt, now)
        whose = replace(whose, issuer=people.client.issuer, person=claims["sub"])
        grant = _grant(people, claims)
        new = replace(
            new_session(held, token, now),
            issuer=whose.issuer,
            person=whose.person,
            display_name=_name(claims.get(people.name_claim)),
            login_sha256=attempt.digest,
            roles=[str(role) for role in grant.roles],
            scopes=[str(scope) for scope in grant.scopes],
            models=grant.models,
        )
        with held.sessions.begin() as session:
            _check_tenant(session, grant)
            whose = replace(whose, tenant=tenant_id(grant.tenant))
            end_before(held, session, request, now)
            asker = _begin(session, request, new, whose.tenant)
    except IssuerUnavailableError as error:
        raise _unavailable(error) from error
    except SignInError as error:
        raise _refused(held, request, error, whose, now) from error
    answer = RedirectResponse(attempt.next, HTTPStatus.SEE_OTHER)
    put_token(held, answer, token, asker, now)
    held.plan.cookies.drop(answer, held.plan.cookies.login)
    return answer


def _people(held: Resources) -> tuple[PeoplePlan, Issuer]:
    if held.plan.people is None or held.issuer is None:
        raise ProblemError(
            HTTPStatus.NOT_FOUND,
            "no_issuer",
            "people do not sign in here: an operator has to set SUBTEXT_OIDC_*; sign in with an API key",
        )
    return held.plan.people, held.issuer


def _attempt(held: Resources, request: Request, now: dt.datetime) -> Attempt:
    """Return the login that this browser began and the issuer's answer is to."""
    attempt = Attempt.read(held.plan.cookies.read(request, held.plan.cookies.login), now)
    if attempt is None:
        raise SignInError(
            "no_login",
            "this browser began no login, or more than ten minutes ago: begin again at /auth/login",
        )
    if not attempt.is_answered_by(request.query_params.get("state", "")):
        raise SignInError("wrong_state", "this answers another login: begin again at /auth/login")
    return attempt


def _claims(issuer: Issuer, request: Request, attempt: Attempt, now: dt.datetime) -> Mapping[str, Any]:
    told = request.query_params
    named = told.get("iss", "" if issuer.answers_name_issuer() else issuer.client.issuer)
    if named != issuer.client.issuer:
        raise SignInError("wrong_issuer", "another issuer answers: begin again at /auth/login")
    if "error" in told:
        raise SignInError("issuer_refused", "the issuer signs nobody in; its page may say why")
    code = told.get("code", "")
    if not 0 < len(code) <= _MAX_CODE:
        raise SignInError("no_code", "the issuer's answer has no code: begin again at /auth/login")
    try:
        return issuer.redeem(code, attempt, now)
    except CodeRefusedError as error:
        raise SignInError("code_refused", str(error)) from error
    except TokenError as error:
        raise SignInError("bad_token", str(error)) from error


def _grant(people: PeoplePlan, claims: Mapping[str, Any]) -> Grant:
    grant = choose(people.grants, groups_in(claims, people.groups_claim))
    if grant is None:
        raise SignInError(
            "no_grant",
            "you are known, and in no group that may do something here: ask an operator",
            HTTPStatus.FORBIDDEN,
        )
    return grant


def _check_tenant(session: Session, grant: Grant) -> None:
    # A reader's transaction: only the ids of tenants are asked for.
    is_open = bool(row_security.list_open(session.connection()))
    if (grant.models is not None or grant.tenant != "default") and is_open:
        message = "nothing would keep the rows of others away: an operator has to run `subtext migrate`"
        raise SignInError("open_store", message, HTTPStatus.FORBIDDEN)
    if not is_there(session, grant.tenant):
        message = "your group's tenant is not there: an operator has to run `subtext tenant create`"
        raise SignInError("unknown_tenant", message, HTTPStatus.FORBIDDEN)


def _begin(session: Session, request: Request, new: NewSession, tenant: uuid.UUID) -> Any:
    scope.enter(session, scope.Reach(tenant))
    try:
        return begin_session(session, request, new)
    except IntegrityError as error:
        raise SignInError("used_login", "this login made a session already: begin again") from error


def _name(said: object) -> str | None:
    if not isinstance(said, str) or not said.isprintable():
        return None
    return said[:_MAX_NAME] or None


def _unavailable(error: IssuerUnavailableError) -> ProblemError:
    _log.warning("issuer_unavailable", error=str(error))
    return ProblemError(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "issuer_unavailable",
        f"people cannot sign in just now: {error}; sessions that there are and API keys work on",
        headers={"Retry-After": "10"},
    )


def _refused(
    held: Resources, request: Request, error: SignInError, whose: _Whose, now: dt.datetime
) -> ProblemError:
    """Count and enter a sign-in that failed; of nobody that is known, in the default tenant's log."""
    held.metrics.observe_authentication_failure("failed_sign_in")
    _log.info("sign_in_failed", code=error.code)
    named = f"{whose.issuer}\n{whose.person}\n{error.code}"
    denial = Denial(uuid.uuid5(_NOBODY, named), operation_of(request), Result.FAILED)
    entry = Entry(
        action=Action.SIGN_IN,
        operation=denial.operation,
        issuer=whose.issuer,
        person=whose.person,
        details={"reason": error.code},
        status=error.status,
        result=Result.FAILED,
    )
    log_denial(held, denial, entry, whose.tenant, now)
    return ProblemError(error.status, error.code, str(error))
