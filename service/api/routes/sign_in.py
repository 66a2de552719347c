"""Signing in for a session, who one is, and signing out. Each is in the access log."""

import datetime as dt
import uuid
from http import HTTPStatus
from typing import Final

from fastapi import APIRouter, Depends, Request, Response
from sqlalchemy.orm import Session

from service import auth
from service.api.caller import Asker, Caller, caller_of, find_by_token
from service.api.deps import Held, Resources, SignedIn, operation_of, refuse_repeated_parameters
from service.api.http.responses import problems
from service.api.schemas.session import SignedInCaller, SignedOut, signed_in
from service.errors import ProblemError
from service.store import keys
from service.store.access.tables import Action, SubjectKind
from service.store.access.write import Entry, Subjects, add_entry
from service.store.people import sessions as people
from service.store.people.sessions import NewSession
from service.store.people.tables import End, LoginSession
from service.store.tenants import scope

_PROBLEMS: Final = problems(HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.SERVICE_UNAVAILABLE)
router = APIRouter(
    prefix="/auth",
    tags=["sessions"],
    responses=_PROBLEMS,
    dependencies=[Depends(refuse_repeated_parameters)],
)


@router.get("/session", summary="Tell who is signed in")
def get_session(caller: SignedIn) -> SignedInCaller:
    """Return who asks, by session or by key: roles, scopes, tenant, models, and until when."""
    return signed_in(caller)


@router.post("/key", summary="Sign in with an API key")
def sign_in_with_key(held: Held, caller: SignedIn, request: Request, response: Response) -> SignedInCaller:
    """Begin a session of the API key that the request carries in its header, and set its cookie.

    The session may do what the key may do, is over when the key is revoked or expires, and has the
    lifetimes of every session.
    """
    if caller.session_id is not None or caller.key_id is None:
        raise ProblemError(
            HTTPStatus.FORBIDDEN,
            "not_a_key",
            "send the API key itself, as Authorization: Bearer KEY or as X-API-Key: KEY",
        )
    check_cookies(held, request)
    now, token = held.clock(), auth.new_token()
    new = new_session(held, token, now, latest=caller.expires_at, key_id=caller.key_id)
    with held.sessions.begin() as session:
        end_before(held, session, request, now)
        scope.enter(session, scope.Reach(caller.reach.tenant))
        made = begin_session(session, request, new)
    put_token(held, response, token, made, now)
    return signed_in(caller_of(made))


@router.post("/logout", summary="Sign out")
def sign_out(held: Held, caller: SignedIn, request: Request, response: Response) -> SignedOut:
    """End the session and let the browser forget its cookie.

    `issuer_logout_url` is where a page then sends the browser to sign out at the issuer as well.
    """
    if caller.session_id is None:
        raise ProblemError(
            HTTPStatus.FORBIDDEN, "not_a_session", "an API key does not sign out; revoke it: subtext key"
        )
    with held.sessions.begin() as session:
        scope.enter(session, scope.Reach(caller.reach.tenant))
        people.end_sessions(session, held.clock(), End.SIGNED_OUT, ids=[caller.session_id])
        add_entry(session, _entry(request, Action.SIGN_OUT, caller.session_id, caller))
    held.plan.cookies.drop(response, held.plan.cookies.session)
    at_issuer = held.issuer if caller.person is not None else None
    return SignedOut(issuer_logout_url=at_issuer.logout_url() if at_issuer else None)


def new_session(
    held: Resources,
    token: str,
    now: dt.datetime,
    *,
    latest: dt.datetime | None = None,
    key_id: uuid.UUID | None = None,
) -> NewSession:
    """Return a session with the lifetimes that are set, and none after ``latest``."""
    over = now + held.plan.lifetime
    expires_at = over if latest is None else min(over, latest)
    return NewSession(
        token_sha256=auth.digest(token),
        key_id=key_id,
        idle_expires_at=min(now + held.plan.idle, expires_at),
        expires_at=expires_at,
    )


def end_before(held: Resources, session: Session, request: Request, now: dt.datetime) -> None:
    """End the session that the browser had: none is handed on to who signs in next."""
    token = held.plan.cookies.read(request, held.plan.cookies.session)
    before = find_by_token(session, token) if token else None
    if before is None or before.session is None:
        return
    scope.enter(session, scope.Reach(before.tenant_id))
    people.end_sessions(session, now, End.REPLACED, ids=[before.id])


def begin_session(session: Session, request: Request, new: NewSession) -> Asker:
    """Store the session of the transaction's tenant with its entry; return whose it is."""
    made: LoginSession = people.add_session(session, new)
    key = None if made.key_id is None else keys.get_key_by_id(session, made.key_id)
    asker = Asker(session=made, key=key)
    add_entry(session, _entry(request, Action.SIGN_IN, made.id, caller_of(asker)))
    return asker


def put_token(held: Resources, response: Response, token: str, asker: Asker, now: dt.datetime) -> None:
    """Give the browser the session's token."""
    if asker.session is None:
        raise LookupError("only a session has a token")
    left = asker.session.expires_at - now
    held.plan.cookies.put(response, held.plan.cookies.session, token, max(0, int(left.total_seconds())))


def check_cookies(held: Resources, request: Request) -> None:
    """Raise the 403 where a cookie may not travel."""
    if not held.plan.cookies.may_be_used(request):
        raise ProblemError(
            HTTPStatus.FORBIDDEN,
            "plain_http",
            "SUBTEXT_SESSION_PLAIN_HTTP gives sessions to a browser on this machine alone: ask for"
            " http://127.0.0.1, or unset it and serve HTTPS",
        )


def _entry(request: Request, action: Action, identity: uuid.UUID, caller: Caller) -> Entry:
    names = dict(caller.names) | {"session_id": identity}
    granted = {
        "roles": list(caller.roles),
        "scopes": sorted(caller.scopes),
        "models": None if caller.reach.models is None else sorted(caller.reach.models),
    }
    return Entry(
        action=action,
        operation=operation_of(request),
        subjects=Subjects(kind=SubjectKind.SESSION, ids=[identity]),
        details=granted if action is Action.SIGN_IN else {},
        status=HTTPStatus.OK,
        **names,
    )
