"""What happened to incidents: their events, how people decided, and by when reports are due."""

import datetime as dt
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field
from sqlalchemy.orm import Session

from service.api.deps import Held, ReadsFlags, reading
from service.api.paging import link
from service.api.parameters import Absent, Name, PageParameters, Parameters, Time
from service.api.routes.coverage import wrong_range
from service.api.schemas.answer import Ratio
from service.api.schemas.history import (
    ClockedIncident,
    ClockedPage,
    Decisions,
    HistoryEvent,
    HistoryPage,
    ReportDue,
    Times,
    TriageSummary,
)
from service.api.schemas.incident import event_fields
from service.api.vocabulary import IncidentEventKind, IncidentState
from service.incidents.clocks import TERMS
from service.incidents.lifecycle import State
from service.store.read import history

router = APIRouter(tags=["incidents"])
_EVENTS: Final = "incident events"
_CLOCKS: Final = "reporting clocks"


class HistoryParameters(PageParameters):
    """Filters of the listing; all given ones must hold."""

    start: Time | Absent = Field(default=None, alias="from", description="Events at this time or later.")
    end: Time | Absent = Field(default=None, alias="to", description="Events before this time.")
    model: Name | Absent = Field(default=None, description="Served model name.")
    severity: Name | Absent = Field(default=None, description="The incident's severity.")
    kind: IncidentEventKind | Absent = Field(
        default=None, description="`triaged` lists what people decided."
    )


@router.get("/incident-events", summary="List what happened to incidents, newest first")
def list_incident_events(
    held: Held,
    caller: ReadsFlags,
    parameters: Annotated[HistoryParameters, Query()],
    request: Request,
    response: Response,
) -> HistoryPage:
    """Return one page of events of all incidents: opened, grown, acknowledged, confirmed, dismissed.

    This is the history of what this store told and people answered. What Alertmanager sent, silenced and
    resolved is in its own history, not here.
    """
    after = link.position(parameters, caller.listing(_EVENTS))
    wanted = history.Filter(
        start=parameters.start, end=parameters.end, model=parameters.model, severity=parameters.severity
    )
    with reading(held, caller) as session:
        page = history.list_events(session, wanted, parameters.kind, after, parameters.limit)
    return HistoryPage(
        items=[
            HistoryEvent(**event_fields(view.event), incident_id=view.incident.id, model=view.model)
            for view in page.items
        ],
        next_cursor=link.link_next(request, response, parameters, caller.listing(_EVENTS), page.next),
    )


class TriageParameters(Parameters):
    """Of which period and incidents."""

    start: Time = Field(alias="from", description="Start of the period, inclusive.")
    end: Time = Field(alias="to", description="End of the period, exclusive.")
    model: Name | Absent = Field(default=None, description="Served model name.")
    severity: Name | Absent = Field(default=None, description="The incident's severity.")


@router.get("/triage", summary="Get decisions, times to review and overrides of a period")
def get_triage(
    held: Held, caller: ReadsFlags, parameters: Annotated[TriageParameters, Query()]
) -> TriageSummary:
    """Return how long incidents waited, what was decided and how much of it was overridden later.

    Times are of incidents that were opened in the period and that somebody reviewed; those that still wait
    are counted beside them, and make the real times longer. `GET /v1/incident-events?kind=triaged` lists
    each decision with who made it.
    """
    with reading(held, caller) as session:
        return summarize(session, parameters)


def summarize(session: Session, parameters: TriageParameters) -> TriageSummary:
    """Return the summary; raises 422 for an empty period."""
    if parameters.start >= parameters.end:
        raise wrong_range("empty_range", "must be earlier than the end of the period")
    wanted = history.Filter(
        start=parameters.start, end=parameters.end, model=parameters.model, severity=parameters.severity
    )
    found = history.summarize(session, wanted)
    made = history.count_decisions(session, wanted)
    return TriageSummary(
        start=parameters.start,
        end=parameters.end,
        opened=found.opened,
        to_first_review=Times.model_validate(found.to_first_review),
        not_reviewed=Ratio.of(found.opened - found.to_first_review.incidents, found.opened),
        to_decision=Times.model_validate(found.to_decision),
        not_decided=Ratio.of(found.opened - found.to_decision.incidents, found.opened),
        decisions=[
            Decisions.model_validate(
                {
                    "to": one.to,
                    "reason_code": one.reason,
                    "decisions": one.decisions,
                    "overridden": Ratio.of(one.overridden, one.decisions),
                }
            )
            for one in made
        ],
        overridden=Ratio.of(sum(one.overridden for one in made), sum(one.decisions for one in made)),
    )


class ClockParameters(PageParameters):
    """Filters of the listing; all given ones must hold."""

    start: Time | Absent = Field(default=None, alias="from", description="Opened at this time or later.")
    end: Time | Absent = Field(default=None, alias="to", description="Opened before this time.")
    model: Name | Absent = Field(default=None, description="Served model name.")
    severity: Name | Absent = Field(default=None, description="The incident's severity.")
    state: IncidentState | Absent = Field(default=None, description="Default: all that are not dismissed.")


@router.get("/reporting-clocks", summary="List incidents with the terms of AI Act, Article 73")
def list_reporting_clocks(
    held: Held,
    caller: ReadsFlags,
    parameters: Annotated[ClockParameters, Query()],
    request: Request,
    response: Response,
) -> ClockedPage:
    """Return one page of incidents that are not dismissed, each with when a report would be due.

    Whether an incident is a serious one and of which class is for people to say: the store does not know,
    and tells the term of each class.
    """
    after = link.position(parameters, caller.listing(_CLOCKS))
    now = dt.datetime.now(dt.UTC)
    wanted = history.Filter(
        start=parameters.start, end=parameters.end, model=parameters.model, severity=parameters.severity
    )
    with reading(held, caller) as session:
        page = history.list_clocked(session, wanted, parameters.state, after, parameters.limit)
    return ClockedPage(
        as_of=now,
        items=[clocked(view, now) for view in page.items],
        next_cursor=link.link_next(request, response, parameters, caller.listing(_CLOCKS), page.next),
    )


def clocked(view: history.Clocked, now: dt.datetime) -> ClockedIncident:
    """Return the answer for one incident with its terms as they stand now."""
    row, confirmed = view.incident, view.confirmed_at
    return ClockedIncident(
        incident_id=row.id,
        model=view.model,
        request_id=row.request_id,
        status="calibrated" if view.is_calibrated else "lead",
        severity=row.severity,
        state=State(row.state),
        labels=row.labels,
        opened_at=row.opened_at,
        confirmed_at=confirmed,
        due=[
            ReportDue(
                clock=clock,
                days=term.days,
                from_confirmation=None if confirmed is None else confirmed + term,
                is_overdue=None if confirmed is None else confirmed + term < now,
                from_opening=row.opened_at + term,
            )
            for clock, term in TERMS.items()
        ],
    )
