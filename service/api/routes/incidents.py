"""Incidents: what was found on requests, and triage of it."""

import datetime as dt
import uuid
from collections.abc import Collection
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field
from sqlalchemy.orm import Session

from service.api.access.gate import Gated, one
from service.api.deps import Caller, Held, ReadsFlags, ReadsRequests, Triages, reading, writing
from service.api.http.responses import problems
from service.api.paging import link
from service.api.parameters import Absent, Name, NoParameters, PageParameters, RequestId, Time
from service.api.schemas.incident import (
    AllowedTransition,
    Assignment,
    Incident,
    IncidentConflict,
    IncidentPage,
    IncidentReport,
    Transition,
    incident,
    report,
)
from service.api.vocabulary import AssigneeFilter, IncidentOrder, IncidentStateFilter
from service.errors import FieldError, ProblemError, invalid_input, problem
from service.incidents import review
from service.incidents.lifecycle import CLOSED, TRANSITIONS, Reason, State, labels
from service.incidents.review import Identity, Step
from service.store import keys, triage
from service.store.access.tables import Action, SubjectKind
from service.store.access.write import add_entry
from service.store.read import incidents, reviews
from service.store.tables import Incident as IncidentRow

router = APIRouter(tags=["incidents"])
_LISTING: Final = "incidents"


class IncidentParameters(PageParameters):
    """Filters of the listing; all given ones must hold."""

    model: Name | Absent = Field(default=None, description="Served model name.")
    request: RequestId | Absent = Field(default=None, description="The audited request's id.")
    concept: Name | Absent = Field(default=None, description="A concept that one of its flags has.")
    severity: Name | Absent = Field(default=None, description="The highest severity of its findings.")
    state: IncidentStateFilter | Absent = Field(
        default=None, description="Where triage stands; `undecided`: open or acknowledged."
    )
    assignee: AssigneeFilter | Absent = Field(
        default=None, description="`me`: assigned to who asks; `none`: to nobody."
    )
    captured_after: Time | Absent = Field(default=None, description="Last capture at this time or later.")
    captured_before: Time | Absent = Field(default=None, description="First capture before this time.")
    order: IncidentOrder = Field(
        default="newest",
        description="`newest`: opened last first. `queue`: by severity, the highest first, and of one "
        "severity the oldest first; a severity that rises may bring an incident before a cursor.",
    )

    def filter(self, caller: Caller) -> incidents.Filter:
        """Return the store's filter."""
        return incidents.Filter(
            model=self.model,
            request_id=self.request,
            concept=self.concept,
            severity=self.severity,
            state=self.state,
            assignee=triage.Actor(**caller.names).identity if self.assignee == "me" else None,
            is_unassigned=self.assignee == "none",
            captured_after=self.captured_after,
            captured_before=self.captured_before,
        )


@router.get("/incidents", summary="List incidents, newest opened first or as a queue")
def list_incidents(
    held: Held,
    caller: ReadsFlags,
    parameters: Annotated[IncidentParameters, Query()],
    request: Request,
    response: Response,
) -> IncidentPage:
    """Return one page of incidents, each with its flags.

    An incident is all that one decoder found on one capture at one layer. Where `status` is `lead`, how
    often one is opened on benign requests is not known. Flags that were raised before there were incidents
    are in `/v1/flags` alone.
    """
    after = link.position(parameters, caller.listing(_LISTING))
    list_page = incidents.list_queue if parameters.order == "queue" else incidents.list_incidents
    with reading(held, caller) as session:
        page = list_page(session, parameters.filter(caller), after, parameters.limit)
    return IncidentPage(
        items=[incident(view) for view in page.items],
        next_cursor=link.link_next(request, response, parameters, caller.listing(_LISTING), page.next),
    )


@router.get(
    "/incidents/{incident_id}",
    summary="Get one incident with all of its evidence",
    responses=problems(HTTPStatus.NOT_FOUND),
)
def get_incident(
    held: Held,
    caller: ReadsRequests,
    gate: Gated,
    incident_id: uuid.UUID,
    _parameters: Annotated[NoParameters, Query()],
) -> IncidentReport:
    """Return the incident with the readings it stands on, its history and what may follow its state.

    Text and tokens are withheld without `explanations:read_text` and a stated purpose. A position that
    matched and is not verified is listed and counts for nothing.
    """
    with reading(held, caller) as session:
        detail = incidents.get_incident(session, incident_id)
    if detail is None:
        raise _unknown()
    disclosure = gate.disclose(caller, detail.evidence)
    return report(detail, _allowed(detail.view.incident.state), disclosure)


@router.post(
    "/incidents/{incident_id}/transitions",
    summary="Change an incident's state",
    responses={
        **problems(HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND),
        int(HTTPStatus.CONFLICT): {
            "model": IncidentConflict,
            "description": "Something happened to it since you read it: read it again and decide anew. Or "
            "you gave the first of two verdicts, and somebody else has to give the second.",
        },
    },
)
def change_state(
    held: Held,
    caller: Triages,
    gate: Gated,
    incident_id: uuid.UUID,
    _parameters: Annotated[NoParameters, Query()],
    transition: Transition,
) -> Incident:
    """Change the state by compare-and-set and return the incident as it is then.

    The change is refused with 409 when `version` is not the incident's any more, so nobody judges evidence
    that he has not read and a repeated call changes nothing twice. Confirming and dismissing label the
    incident's concepts: measured precision stands on that. Where a concept asks for two reviewers
    (`second_review`), the first verdict is a `proposal` and the state stays, until somebody else gives the
    same. The database refuses both verdicts to one key, and to one person, in whichever sessions.
    """
    with writing(held, caller) as session:
        row = _locked(session, incident_id)
        change = _checked(row, transition, triage.list_concepts(session, row))
        step = _take_step(session, row, change, triage.Actor(**caller.names))
        subjects = one(SubjectKind.INCIDENT, incident_id)
        add_entry(session, gate.entry(caller, Action.WRITE, subjects, details={"step": step}))
        return _shown(session, incident_id)


@router.post(
    "/incidents/{incident_id}/assignee",
    summary="Give an incident to a reviewer, or to nobody",
    responses={
        **problems(HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND),
        int(HTTPStatus.CONFLICT): {
            "model": IncidentConflict,
            "description": "Something happened to it since you read it; read it again.",
        },
    },
)
def assign_incident(
    held: Held,
    caller: Triages,
    gate: Gated,
    incident_id: uuid.UUID,
    _parameters: Annotated[NoParameters, Query()],
    assignment: Assignment,
) -> Incident:
    """Say by compare-and-set who looks at an undecided incident, and return it as it is then.

    It is an event of its history and changes no state: others may still decide, and a proposal of a first
    reviewer stands.
    """
    with writing(held, caller) as session:
        row = _locked(session, incident_id)
        if assignment.version != row.version:
            raise _conflict(row, assignment.version)
        if State(row.state) in CLOSED:
            message = f"the incident is {row.state}; set it `open` again before somebody takes it"
            raise _wrong("assignee", "incident_decided", message)
        actor = triage.Actor(**caller.names)
        assignee = _assignee(session, assignment, actor, held.clock())
        triage.assign(session, row, assignee, actor)
        add_entry(session, gate.entry(caller, Action.WRITE, one(SubjectKind.INCIDENT, incident_id)))
        return _shown(session, incident_id)


def _locked(session: Session, incident_id: uuid.UUID) -> IncidentRow:
    row = triage.lock_incident(session, incident_id)
    if row is None:
        raise _unknown()
    return row


def _shown(session: Session, incident_id: uuid.UUID) -> Incident:
    session.expire_all()
    view = incidents.get_view(session, incident_id)
    if view is None:
        raise _unknown()
    return incident(view)


def _take_step(session: Session, row: IncidentRow, change: triage.Change, actor: triage.Actor) -> Step:
    """Decide, propose or agree, and say which; raises the 409 to who agrees with himself."""
    is_verdict = change.to in CLOSED
    standing = reviews.get_standing(session, row.id) if is_verdict else None
    by = actor.identity
    if standing is not None and keys.are_of_one(session, standing.by.key_id, by.key_id):
        by = standing.by
    try:
        step = review.step(
            needs_second=is_verdict and reviews.needs_second(session, row),
            standing=standing,
            to=change.to,
            labels=change.labels,
            by=by,
        )
    except review.OwnProposalError as error:
        raise _refused(row, "second_reviewer_needed", str(error)) from error
    if step is Step.PROPOSES:
        triage.propose(session, row, change, actor)
        return step
    if step is Step.AGREES and standing is not None:
        change = change._replace(agrees_with=standing.version)
    try:
        triage.apply(session, row, change, actor)
    except triage.SecondNeededError as error:
        raise _refused(row, "incident_changed", str(error)) from error
    return step


def _assignee(
    session: Session, asked: Assignment, actor: triage.Actor, now: dt.datetime
) -> triage.Assignee | None:
    """Return who shall have it; raises the 422 that names the field and the fix."""
    needed = {"key": ("key_id",), "person": ("issuer", "person")}.get(asked.assignee, ())
    for field in ("key_id", "issuer", "person"):
        is_given = getattr(asked, field) is not None
        if is_given and field not in needed:
            raise _wrong(field, "not_allowed", f"leave it out: it is not of assignee {asked.assignee!r}")
        if not is_given and field in needed:
            raise _wrong(field, "missing", f"assignee {asked.assignee!r} needs it")
    if asked.assignee == "me":
        return actor.assignee
    if asked.assignee == "none":
        return None
    found = triage.find_reviewer(session, Identity(asked.key_id, asked.issuer, asked.person), now)
    if found is None:
        message = "name a key that works, or a person who signed in here, with the scope incidents:triage"
        raise _wrong(needed[-1], "unknown_reviewer", message)
    return found


def _checked(row: IncidentRow, asked: Transition, concepts: Collection[str]) -> triage.Change:
    """Return the change; raises the 409 or 422 that says what to do instead."""
    if asked.version != row.version:
        raise _conflict(row, asked.version)
    state, to, reason = State(row.state), State(asked.to), Reason(asked.reason_code)
    allowed = TRANSITIONS[state]
    if to not in allowed:
        followers = " or ".join(allowed)
        raise _wrong("to", "transition_not_allowed", f"after {state} may come {followers}, not {to}")
    if reason not in allowed[to]:
        reasons = ", ".join(allowed[to])
        raise _wrong("reason_code", "reason_not_allowed", f"from {state} to {to} write one of: {reasons}")
    confirmed = _confirmed(to, asked.confirmed_concepts, concepts)
    return triage.Change(asked.version, to, reason, asked.note, labels(to, reason, concepts, confirmed))


def _confirmed(to: State, asked: Collection[str] | None, concepts: Collection[str]) -> Collection[str]:
    field = "confirmed_concepts"
    listed = ", ".join(sorted(concepts)) or "none"
    if to != State.CONFIRMED:
        if asked is not None:
            raise _wrong(field, "concepts_not_allowed", f"leave it out: it belongs to confirmed, not {to}")
        return ()
    if asked is None:
        if len(concepts) > 1:
            raise _wrong(field, "concepts_required", f"say which of these hold: {listed}")
        return concepts
    unknown = sorted(set(asked) - set(concepts))
    if unknown:
        raise _wrong(
            field, "unknown_concept", f"the incident has no flag for {unknown[0]!r}; it has: {listed}"
        )
    return asked


def _wrong(field: str, code: str, message: str) -> ProblemError:
    return invalid_input([FieldError(location="body", field=field, code=code, message=message)])


def _conflict(row: IncidentRow, version: int) -> ProblemError:
    detail = (
        f"the incident is {row.state} at version {row.version}, and you read version {version}: "
        "read it again and decide anew"
    )
    return _refused(row, "incident_changed", detail)


def _refused(row: IncidentRow, code: str, detail: str) -> ProblemError:
    error = ProblemError(HTTPStatus.CONFLICT, code, detail)
    error.problem = IncidentConflict(
        **problem(HTTPStatus.CONFLICT, code, detail).model_dump(),
        state=State(row.state),
        version=row.version,
    )
    return error


def _unknown() -> ProblemError:
    return ProblemError(HTTPStatus.NOT_FOUND, "unknown_incident", "there is no incident with this id")


def _allowed(state: str) -> list[AllowedTransition]:
    return [
        AllowedTransition(to=to, reason_codes=list(reasons))
        for to, reasons in TRANSITIONS[State(state)].items()
    ]
