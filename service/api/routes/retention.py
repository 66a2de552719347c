"""For how long rows are kept: what is in force, what was, and setting it anew."""

import datetime as dt
import uuid
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field
from sqlalchemy.orm import Session

from service.api.access.gate import Gated, one
from service.api.deps import Caller, Held, ReadsCoverage, WritesRetention, reading, writing
from service.api.http.responses import problems
from service.api.paging import link
from service.api.parameters import Absent, NoParameters, PageParameters, Parameters, Time
from service.api.schemas.certificate import (
    DeletionCertificatePage,
    ProvedCertificate,
    certificate,
    proved_certificate,
)
from service.api.schemas.decision import NewDecision
from service.api.schemas.retention import (
    AskedPeriod,
    RetentionInForce,
    RetentionPage,
    RetentionVersion,
    retention_version,
)
from service.auth import Scope, allows
from service.errors import FieldError, Problem, ProblemError, invalid_input
from service.retention import certificates, decisions, periods
from service.retention.classes import PeriodError
from service.retention.placing import NotAllowedStepError, UnknownModelError
from service.store.access.tables import Action, SubjectKind
from service.store.access.write import add_entry
from service.store.retention.tables import Decision
from service.store.triage import Actor

router = APIRouter(tags=["retention"])
_LISTING: Final = "retention versions"
_CERTIFICATES: Final = "deletion certificates"


class RetentionParameters(Parameters):
    """At which time."""

    at: Time | Absent = Field(default=None, description="In force at this time; default: now.")


@router.get("/retention", summary="Get for how long rows are kept")
def get_retention(
    held: Held, caller: ReadsCoverage, parameters: Annotated[RetentionParameters, Query()]
) -> RetentionInForce:
    """Return the periods in force at a time: the tenant's, of its records, and of models with their own.

    Without either nothing is removed. A legal hold comes before every period.
    """
    at = parameters.at or dt.datetime.now(dt.UTC)
    with reading(held, caller) as session:
        found = periods.list_in_force(session, at)
    return RetentionInForce(as_of=at, items=[retention_version(view) for view in found])


@router.get("/retention/versions", summary="List every period that was set, newest first")
def list_retention_versions(
    held: Held,
    caller: ReadsCoverage,
    parameters: Annotated[PageParameters, Query()],
    request: Request,
    response: Response,
) -> RetentionPage:
    """Return one page of all versions, also of those that are to come into force. None ever changes."""
    after = link.position(parameters, caller.listing(_LISTING))
    with reading(held, caller) as session:
        page = periods.list_versions(session, after, parameters.limit)
    return RetentionPage(
        items=[retention_version(view) for view in page.items],
        next_cursor=link.link_next(request, response, parameters, caller.listing(_LISTING), page.next),
    )


class CertificateParameters(PageParameters):
    """Of which period."""

    start: Time | Absent = Field(default=None, alias="from", description="Issued at this time or later.")
    end: Time | Absent = Field(default=None, alias="to", description="Issued before this time.")


@router.get("/retention/certificates", summary="List deletion certificates, newest first")
def list_deletion_certificates(
    held: Held,
    caller: ReadsCoverage,
    parameters: Annotated[CertificateParameters, Query()],
    request: Request,
    response: Response,
) -> DeletionCertificatePage:
    """Return one page of certificates: one for each retention run of a model that removed something."""
    after = link.position(parameters, caller.listing(_CERTIFICATES))
    with reading(held, caller) as session:
        page = certificates.list_certificates(
            session, parameters.start, parameters.end, after, parameters.limit
        )
    return DeletionCertificatePage(
        items=[certificate(view) for view in page.items],
        next_cursor=link.link_next(request, response, parameters, caller.listing(_CERTIFICATES), page.next),
    )


@router.get(
    "/retention/certificates/{certificate_id}",
    summary="Get a deletion certificate with its proof",
    responses=problems(HTTPStatus.NOT_FOUND),
)
def get_deletion_certificate(
    held: Held,
    caller: ReadsCoverage,
    certificate_id: uuid.UUID,
    _parameters: Annotated[NoParameters, Query()],
) -> ProvedCertificate:
    """Return the certificate, and what proves by the log's public key alone that it was issued as it is."""
    with reading(held, caller) as session:
        view = certificates.get_certificate(session, certificate_id)
        if view is None:
            raise ProblemError(
                HTTPStatus.NOT_FOUND, "unknown_certificate", "there is no certificate with this id"
            )
        found = certificates.prove(session, caller.reach.tenant, view.certificate)
        return proved_certificate(view, found)


@router.post(
    "/retention", summary="Set for how long rows are kept", responses=problems(HTTPStatus.BAD_REQUEST)
)
def set_retention(
    held: Held,
    caller: WritesRetention,
    gate: Gated,
    _parameters: Annotated[NoParameters, Query()],
    asked: AskedPeriod,
) -> RetentionVersion:
    """Add a version and return it: from then on rows older than the period are removed by retention runs.

    One by which rows go that would stay, or that is to come into force later, waits: until
    `objectable_until` whoever may hold or set periods may object, and somebody else may confirm it.

    A period below the floor or above the ceiling of its class is refused, and one of records that is
    shorter than what they tell about is kept. What is removed does not come back. A key that is for some
    models alone names one of them.
    """
    if caller.reach.models is not None and asked.model is None:
        raise _wrong("model", "model_required", "name one of the models that this key is for")
    with writing(held, caller) as session:
        try:
            view = periods.set_period(session, asked.stored(), Actor(**caller.names))
        except PeriodError as error:
            raise _wrong(error.field, error.code, str(error)) from error
        except UnknownModelError as error:
            message = "no model of this name is known; `GET /v1/models` lists those that are"
            raise _wrong("model", "unknown_model", message) from error
        subjects = one(SubjectKind.RETENTION_VERSION, view.version.id)
        add_entry(session, gate.entry(caller, Action.CONFIGURATION_CHANGE, subjects))
        return retention_version(view)


@router.post(
    "/retention/versions/{version_id}/decision",
    summary="Confirm a period that waits, or object to it",
    responses={
        **problems(HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND),
        int(HTTPStatus.CONFLICT): {
            "model": Problem,
            "description": "It does not wait any longer, or somebody else has to confirm.",
        },
    },
)
def decide_on_retention(
    held: Held,
    caller: ReadsCoverage,
    gate: Gated,
    version_id: uuid.UUID,
    _parameters: Annotated[NoParameters, Query()],
    asked: NewDecision,
) -> RetentionVersion:
    """Decide on a version while it waits, once for all; return it as it is then.

    Who confirms needs `retention:write` and is somebody else than who set it: then it is in force as asked.
    Who objects needs `retention:write` or `holds:write`: then it never is. The database refuses all else.
    """
    decision = Decision(asked.decision)
    may_hold = decision is Decision.OBJECTED and allows(caller.scopes, Scope.HOLDS_WRITE)
    if not may_hold:
        gate.require(caller, [Scope.RETENTION_WRITE])
    with writing(held, caller) as session:
        _get(session, caller, version_id)
        removal = decisions.Removal(version_id, "retention")
        try:
            decisions.decide(session, removal, decision, asked.reason, Actor(**caller.names))
        except NotAllowedStepError as error:
            raise ProblemError(HTTPStatus.CONFLICT, error.code, str(error)) from error
        subjects = one(SubjectKind.RETENTION_VERSION, version_id)
        details = {"decision": str(decision)}
        add_entry(session, gate.entry(caller, Action.CONFIGURATION_CHANGE, subjects, details))
        return retention_version(_get(session, caller, version_id))


def _get(session: Session, caller: Caller, version_id: uuid.UUID) -> periods.View:
    view = periods.get_version(session, version_id)
    is_of_others = caller.reach.models is not None and view is not None and view.version.model_id is None
    if view is None or is_of_others:
        detail = "there is no retention version with this id"
        raise ProblemError(HTTPStatus.NOT_FOUND, "unknown_version", detail)
    return view


def _wrong(field: str, code: str, message: str) -> ProblemError:
    return invalid_input([FieldError(location="body", field=field, code=code, message=message)])
