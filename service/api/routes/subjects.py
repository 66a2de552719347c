"""Data subjects: everything that is stored of one person, by subject key, and the key of an id."""

from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field
from starlette.convertors import StringConvertor, register_url_convertor

from service.api.access.gate import Gated
from service.api.deps import Held, ReadsAccess, ReadsSubjects, reading
from service.api.http.responses import problems
from service.api.paging import link
from service.api.parameters import NoParameters, PageParameters
from service.api.schemas.subject import SubjectFound, SubjectLookup, SubjectReport, subject_report
from service.errors import FieldError, ProblemError, invalid_input
from service.store.access.tables import Action, SubjectKind
from service.store.access.write import Subjects
from service.store.identity import tenant_id
from service.store.read import subjects
from subtext_sidecar.contract.subject import subject_key, tenant_secret

router = APIRouter(tags=["subjects"])
_LISTING: Final = "samples of subject"
_MAX_SAMPLES: Final = 200

SubjectKeyInPath = Annotated[
    str,
    Path(
        pattern=r"^[0-9a-f]{32}$",
        description="A subject key: 32 hexadecimal digits in lower case.",
        examples=["5aedc0a1f3ff2a4e6a1e0f6c7d1f9b22"],
    ),
]


class _NotLookup(StringConvertor):
    """Any part of a path but the lookup's, to which a GET is no wrong key but a wrong method."""

    regex = "(?!lookup$)[^/]+"


register_url_convertor("not_lookup", _NotLookup())


@router.post(
    "/subjects/lookup",
    summary="Get the subject key of a person's id",
    responses=problems(HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
)
def look_up_subject(
    *,
    held: Held,
    caller: ReadsAccess,
    gate: Gated,
    asked: SubjectLookup,
    _parameters: Annotated[NoParameters, Query()],
) -> SubjectFound:
    """Return the subject key that the gateway's id of a person stands for, stored or not.

    The id is kept nowhere; that a key was looked up is entered in the access log as `log_read`. 409
    `no_subject_secret`: the service was not given the secret; where it is, `subtext subject` does the same.
    """
    if held.subject_secret is None:
        raise ProblemError(
            HTTPStatus.CONFLICT,
            "no_subject_secret",
            "this service has no secret of subject keys: set SUBTEXT_SUBJECT_SECRET_FILE",
        )
    if tenant_id(asked.tenant) != caller.reach.tenant:
        raise ProblemError(
            HTTPStatus.NOT_FOUND, "unknown_tenant", "the API key is of no tenant with this name"
        )
    try:
        key = subject_key(tenant_secret(held.subject_secret, asked.tenant), asked.subject_id)
    except ValueError as error:
        wrong = FieldError(location="body", field="subject_id", code="no_subject_id", message=str(error))
        raise invalid_input([wrong]) from None
    gate.record(caller, gate.entry(caller, Action.LOG_READ))
    return SubjectFound(subject=key, url=f"/v1/subjects/{key}")


class SubjectParameters(PageParameters):
    """Which page of the samples."""

    limit: int = Field(default=50, ge=1, le=_MAX_SAMPLES, description="Samples a page.")


@router.get(
    "/subjects/{subject_key:not_lookup}",
    summary="Get everything that is stored of a data subject",
    responses=problems(HTTPStatus.NOT_FOUND),
)
def get_subject(
    *,
    held: Held,
    caller: ReadsSubjects,
    gate: Gated,
    subject_key: SubjectKeyInPath,
    parameters: Annotated[SubjectParameters, Query()],
    request: Request,
    response: Response,
) -> SubjectReport:
    """Return samples, explanations, flags and incidents of the person's requests, and who read them.

    Requests that came without their data subject are not here: `statement` says what the answer cannot
    hold. Each explanation has its place in the evidence log and the address of its proof. Text and tokens
    are withheld without `explanations:read_text` and a stated purpose (`subject_request`). This reading is
    entered in the access log as `log_read` with the explanations that it shows, before it is answered.
    404, entered too: no sample is stored under the key. It never says that the person sent nothing.
    """
    listing = caller.listing(f"{_LISTING} {subject_key}")
    after = link.position(parameters, listing)
    with reading(held, caller) as session:
        view = subjects.get_subject(session, caller.reach.tenant, subject_key, after, parameters.limit)
    captures = () if view is None else view.captures.items
    shown = [one for capture in captures for one in capture.explanations]
    named = Subjects(kind=SubjectKind.EXPLANATION, ids=[one.explanation.id for one in shown])
    # That nothing is stored of a person is told of him too.
    gate.record(caller, gate.entry(caller, Action.LOG_READ, named))
    if view is None:
        raise ProblemError(
            HTTPStatus.NOT_FOUND,
            "unknown_subject",
            "no sample is stored under this subject key: the person's requests were not sampled, came "
            "without their data subject, are not decoded yet or were erased; it does not say that there "
            "were none",
        )
    disclosure = gate.disclose(
        caller, shown, [one.sample for capture in captures for one in capture.samples]
    )
    next_cursor = link.link_next(request, response, parameters, listing, view.captures.next)
    return subject_report(subject_key, view, next_cursor, disclosure)
