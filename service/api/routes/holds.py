"""Legal holds: what may not be removed, who placed it, and the two that lift it."""

import datetime as dt
import uuid
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field
from sqlalchemy.orm import Session

from service.api.access.gate import Gated, one
from service.api.deps import Caller, Held, ReadsHolds, WritesHolds, reading, writing
from service.api.http.responses import problems
from service.api.paging import link
from service.api.parameters import Absent, NoParameters, PageParameters, Time, Truth
from service.api.schemas.hold import (
    LegalHold,
    LegalHoldPage,
    Lift,
    NewLegalHold,
    legal_hold,
    store_scope,
)
from service.errors import FieldError, Problem, ProblemError, invalid_input
from service.retention import placing
from service.store.access.tables import Action, SubjectKind
from service.store.access.write import add_entry
from service.store.triage import Actor

router = APIRouter(tags=["retention"])
_LISTING: Final = "legal holds"


class HoldParameters(PageParameters):
    """Filters of the listing."""

    at: Time | Absent = Field(default=None, description="In force at this time; default: now.")
    with_lifted: Truth = Field(default=False, description="Also those that were lifted by then.")


@router.get("/legal-holds", summary="List the legal holds in force at a time, newest first")
def list_legal_holds(
    held: Held,
    caller: ReadsHolds,
    parameters: Annotated[HoldParameters, Query()],
    request: Request,
    response: Response,
) -> LegalHoldPage:
    """Return one page of holds, each with its scope, who placed it and why.

    A hold is in force from when it was placed until somebody else confirmed its lift; `state` is of now.
    """
    after = link.position(parameters, caller.listing(_LISTING))
    at = parameters.at or dt.datetime.now(dt.UTC)
    with reading(held, caller) as session:
        page = placing.list_holds(session, at, after, parameters.limit, with_lifted=parameters.with_lifted)
    return LegalHoldPage(
        as_of=at,
        items=[legal_hold(view) for view in page.items],
        next_cursor=link.link_next(request, response, parameters, caller.listing(_LISTING), page.next),
    )


@router.post("/legal-holds", summary="Place a legal hold", responses=problems(HTTPStatus.BAD_REQUEST))
def place_legal_hold(
    held: Held,
    caller: WritesHolds,
    gate: Gated,
    _parameters: Annotated[NoParameters, Query()],
    asked: NewLegalHold,
) -> LegalHold:
    """Place a hold and return it. From then on neither retention nor an erasure removes what it covers.

    What was removed before cannot be held. A key that is for some models alone names one of them.
    """
    if caller.reach.models is not None and asked.scope.model is None:
        raise _wrong("scope.model", "model_required", "name one of the models that this key is for")
    with writing(held, caller) as session:
        try:
            placed = placing.place(
                session, store_scope(asked.scope), asked.reason, asked.reference, _actor(caller)
            )
        except placing.UnknownModelError as error:
            message = "no model of this name is known; `GET /v1/models` lists those that are"
            raise _wrong("scope.model", "unknown_model", message) from error
        add_entry(session, gate.entry(caller, Action.WRITE, one(SubjectKind.LEGAL_HOLD, placed)))
        return legal_hold(_get(session, placed))


@router.post(
    "/legal-holds/{hold_id}/lift",
    summary="Ask to lift a legal hold, or confirm it",
    responses={
        **problems(HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND),
        int(HTTPStatus.CONFLICT): {
            "model": Problem,
            "description": "It is lifted already, or somebody else has to confirm.",
        },
    },
)
def lift_legal_hold(
    held: Held,
    caller: WritesHolds,
    gate: Gated,
    hold_id: uuid.UUID,
    _parameters: Annotated[NoParameters, Query()],
    asked: Lift,
) -> LegalHold:
    """Take one of two steps: one key or person asks, and another confirms. Return the hold as it is then.

    The hold is in force until the second step. The database refuses both steps to one key, and to one
    person, in whichever sessions; that two keys are two people's is for those to see to who make keys.
    """
    with writing(held, caller) as session:
        view = _get(session, hold_id)
        if caller.reach.models is not None and view.hold.model_id is None:
            raise _unknown()  # it covers models that this key is not for
        try:
            step = placing.lift(session, view, asked.reason, _actor(caller))
        except placing.NotAllowedStepError as error:
            raise ProblemError(HTTPStatus.CONFLICT, error.code, str(error)) from error
        subjects = one(SubjectKind.LEGAL_HOLD, hold_id)
        add_entry(session, gate.entry(caller, Action.WRITE, subjects, details={"step": step}))
        return legal_hold(_get(session, hold_id))


def _get(session: Session, hold_id: uuid.UUID) -> placing.View:
    view = placing.get_hold(session, hold_id)
    if view is None:
        raise _unknown()
    return view


def _actor(caller: Caller) -> Actor:
    return Actor(**caller.names)


def _unknown() -> ProblemError:
    return ProblemError(HTTPStatus.NOT_FOUND, "unknown_hold", "there is no legal hold with this id")


def _wrong(field: str, code: str, message: str) -> ProblemError:
    return invalid_input([FieldError(location="body", field=field, code=code, message=message)])
