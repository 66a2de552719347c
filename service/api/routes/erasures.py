"""Requests for erasure: ask, and see in counts how far each is."""

import re
import uuid
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session

from service.api.access.gate import Gated, one
from service.api.access.purpose import HEADER
from service.api.deps import AsksForErasures, Caller, Held, ReadsErasures, reading, writing
from service.api.http.responses import problems
from service.api.paging import link
from service.api.parameters import NoParameters, PageParameters
from service.api.schemas.decision import NewDecision
from service.api.schemas.erasure import (
    Erasure,
    ErasurePage,
    NewErasure,
    NewErasureAnswer,
    erasure,
    new_erasure,
)
from service.auth import Scope, allows
from service.errors import FieldError, Location, Problem, ProblemError, invalid_input
from service.retention import decisions
from service.retention.placing import NotAllowedStepError
from service.store.access.tables import Action, SubjectKind
from service.store.access.write import add_entry
from service.store.erasure import requests
from service.store.erasure.tables import ErasureScope
from service.store.retention.tables import Decision
from service.store.triage import Actor
from subtext_sidecar.contract.request_id import bounded
from subtext_sidecar.contract.subject import KEYS, is_subject_key

router = APIRouter(tags=["erasure"])
_LISTING: Final = "erasures"
_TRACE: Final = re.compile(r"[0-9a-f]{32}")


@router.post(
    "/erasures",
    summary="Ask that what is stored of a request, capture, trace, data subject or tenant be erased",
    responses=problems(HTTPStatus.BAD_REQUEST),
)
def ask_for_erasure(
    held: Held,
    caller: AsksForErasures,
    gate: Gated,
    _parameters: Annotated[NoParameters, Query()],
    asked: NewErasure,
) -> NewErasureAnswer:
    """Take the request and return it with a certificate, which is given this once.

    It is carried out in tables, streams, dead letters and the access log, and not before the time to object
    is over, or somebody else has confirmed it. Whether anything is stored of it is not told, and an unknown
    identifier is no error. A purpose is required.
    """
    if gate.purpose is None:
        message = "say what this is for, e.g. subject_request; what was asked is kept with it"
        raise _wrong("header", HEADER, "missing_purpose", message)
    _refuse_restricted(caller)
    scope, identifier = ErasureScope(asked.scope), _identifier(asked)
    with writing(held, caller) as session:
        actor = Actor(**caller.names)
        made, certificate = requests.ask(session, scope, identifier, actor)
        details = {"scope": str(scope), "commitment": certificate.commitment.hex()}
        add_entry(session, gate.entry(caller, Action.WRITE, one(SubjectKind.ERASURE, made), details))
        told = requests.get(session, made)
        if told is None:
            raise LookupError("an erasure that was just added")
        return new_erasure(told, certificate.salt)


@router.get("/erasures", summary="List requests for erasure, newest first")
def list_erasures(
    held: Held,
    caller: ReadsErasures,
    parameters: Annotated[PageParameters, Query()],
    request: Request,
    response: Response,
) -> ErasurePage:
    """Return one page of requests, open and done ones: who asked, when, and what went, in counts."""
    after = link.position(parameters, caller.listing(_LISTING))
    with reading(held, caller) as session:
        page = requests.list_page(session, after, parameters.limit)
        decided = decisions.decisions_of(session, "erasure", [one.id for one in page.items])
    return ErasurePage(
        items=[erasure(told, decided.get(told.id)) for told in page.items],
        next_cursor=link.link_next(request, response, parameters, caller.listing(_LISTING), page.next),
    )


@router.get(
    "/erasures/{erasure_id}",
    summary="See how far an erasure is",
    responses=problems(HTTPStatus.NOT_FOUND),
)
def get_erasure(
    held: Held,
    caller: ReadsErasures,
    erasure_id: uuid.UUID,
    _parameters: Annotated[NoParameters, Query()],
) -> Erasure:
    """Return one request. What it is about is not told."""
    with reading(held, caller) as session:
        return _get(session, erasure_id)


@router.post(
    "/erasures/{erasure_id}/decision",
    summary="Confirm an erasure that waits, or object to it",
    responses={
        **problems(HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND),
        int(HTTPStatus.CONFLICT): {
            "model": Problem,
            "description": "It does not wait any longer, or somebody else has to confirm.",
        },
    },
)
def decide_on_erasure(
    held: Held,
    caller: ReadsErasures,
    gate: Gated,
    erasure_id: uuid.UUID,
    _parameters: Annotated[NoParameters, Query()],
    asked: NewDecision,
) -> Erasure:
    """Decide on a request while it waits, once for all; return it as it is then.

    Who confirms needs `erasures:write` and is somebody else than who asked: it is then carried out at once.
    Who objects needs `erasures:write` or `holds:write`: it is then never carried out, and its identifier is
    forgotten. The database refuses all else.
    """
    decision = Decision(asked.decision)
    may_hold = decision is Decision.OBJECTED and allows(caller.scopes, Scope.HOLDS_WRITE)
    if not may_hold:
        gate.require(caller, [Scope.ERASURES_WRITE])
    _refuse_restricted(caller)
    with writing(held, caller) as session:
        _get(session, erasure_id)
        removal = decisions.Removal(erasure_id, "erasure")
        try:
            decisions.decide(session, removal, decision, asked.reason, Actor(**caller.names))
        except NotAllowedStepError as error:
            raise ProblemError(HTTPStatus.CONFLICT, error.code, str(error)) from error
        subjects = one(SubjectKind.ERASURE, erasure_id)
        add_entry(session, gate.entry(caller, Action.WRITE, subjects, {"decision": str(decision)}))
        return _get(session, erasure_id)


def _get(session: Session, erasure_id: uuid.UUID) -> Erasure:
    told = requests.get(session, erasure_id)
    if told is None:
        detail = "there is no request for erasure with this id"
        raise ProblemError(HTTPStatus.NOT_FOUND, "unknown_erasure", detail)
    return erasure(told, decisions.decisions_of(session, "erasure", [erasure_id]).get(erasure_id))


def _refuse_restricted(caller: Caller) -> None:
    if caller.reach.models is not None:
        detail = "this key is for some models alone, and an erasure is of all of a tenant's"
        raise ProblemError(HTTPStatus.FORBIDDEN, "restricted_key", detail)


def _identifier(asked: NewErasure) -> str | None:
    """Return the identifier as it is stored; raises the 422 for one that fits no scope."""
    given = asked.identifier
    match asked.scope:
        case "tenant" if given is not None:
            raise _wrong("body", "identifier", "not_expected", "leave it out: the key's tenant is meant")
        case "tenant":
            return None
        case _ if given is None:
            raise _wrong("body", "identifier", "missing", "say of which one")
        case "capture":
            try:
                return str(uuid.UUID(given))
            except ValueError:
                raise _wrong("body", "identifier", "not_a_capture", "write the UUID of a capture") from None
        case "trace" if not _TRACE.fullmatch(given):
            raise _wrong("body", "identifier", "not_a_trace", "write 32 lower-case hexadecimal digits")
        case "subject" if not is_subject_key(given):
            raise _wrong("body", "identifier", "not_a_subject", f"a subject key is {KEYS}")
        case "request":
            return bounded(given)  # as the plugin stores it
        case _:
            return given


def _wrong(location: Location, field: str, code: str, message: str) -> ProblemError:
    return invalid_input([FieldError(location=location, field=field, code=code, message=message)])
