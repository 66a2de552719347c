"""The access log and the review of access rights. Reading either is in the log too."""

import datetime as dt
import uuid
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from service.api.access.gate import Gated
from service.api.deps import Caller, Held, ReadsAccess, reading
from service.api.paging import link
from service.api.parameters import Absent, PageParameters, Person, Time
from service.api.schemas.access import (
    AccessLogEntry,
    AccessLogPage,
    AccessRightPage,
    access_right,
)
from service.api.vocabulary import AccessAction, AccessPurpose
from service.errors import FieldError, invalid_input
from service.store.access import read
from service.store.access.tables import Action

router = APIRouter(tags=["access"])
_LOG: Final = "access log"
_RIGHTS: Final = "access rights"
_PERIOD: Final = dt.timedelta(days=90)


class AccessLogParameters(PageParameters):
    """Filters of the listing; all given ones must hold."""

    key: uuid.UUID | Absent = Field(default=None, description="What this API key did, by its id.")
    session: uuid.UUID | Absent = Field(default=None, description="What was done in this session.")
    person: Person | Absent = Field(
        default=None, description="What this person did, by the issuer's `sub`, in whichever session."
    )
    action: AccessAction | Absent = Field(default=None, description="What was done.")
    purpose: AccessPurpose | Absent = Field(default=None, description="The purpose that was stated.")
    subject: uuid.UUID | Absent = Field(
        default=None,
        description="What was done with this explanation, capture, incident or key. Of an explanation also "
        "answers about its capture that showed more texts than their entries name.",
    )
    entered_after: Time | Absent = Field(default=None, description="Entered at this time or later.")
    entered_before: Time | Absent = Field(default=None, description="Entered before this time.")

    def filter(self) -> read.Filter:
        """Return the store's filter."""
        return read.Filter(
            key_id=self.key,
            session_id=self.session,
            person=self.person,
            action=None if self.action is None else Action(self.action),
            purpose=self.purpose,
            subject=self.subject,
            entered_after=self.entered_after,
            entered_before=self.entered_before,
        )


@router.get("/access-log", summary="List who read which text, when and why, newest first")
def list_access_log(
    *,
    held: Held,
    caller: ReadsAccess,
    gate: Gated,
    parameters: Annotated[AccessLogParameters, Query()],
    request: Request,
    response: Response,
) -> AccessLogPage:
    """Return one page of entries: reads of text, writes, denials, and changes of keys.

    `subject` with an explanation's id tells who read its text, when and why. Entries never change. This
    reading is entered as `log_read` before it is answered, so it is on the next first page.
    """
    after = link.position(parameters, caller.listing(_LOG))
    with reading(held, caller) as session:
        page = read.list_entries(session, parameters.filter(), after, parameters.limit)
        removed_before = read.removed_before(session)
    _log_reading(gate, caller, parameters)
    return AccessLogPage(
        removed_before=removed_before,
        items=[AccessLogEntry.model_validate(entry) for entry in page.items],
        next_cursor=link.link_next(request, response, parameters, caller.listing(_LOG), page.next),
    )


class AccessRightParameters(PageParameters):
    """In which period to count what was done."""

    start: Time | Absent = Field(
        default=None, alias="from", description="Start of the period, inclusive; 90 days before its end."
    )
    end: Time | Absent = Field(default=None, alias="to", description="End of the period, exclusive; now.")


@router.get("/access-rights", summary="Review what each key and each person may do and did")
def list_access_rights(
    *,
    held: Held,
    caller: ReadsAccess,
    gate: Gated,
    parameters: Annotated[AccessRightParameters, Query()],
    request: Request,
    response: Response,
) -> AccessRightPage:
    """Return one page of API keys, revoked and expired ones too, and of people's sessions, newest first.

    Each with its roles, scopes, models and times, and how often it read text, wrote and was denied in the
    period; never its secret. A session is listed when it could be used in the period; `person` and `issuer`
    say whose it is. What was done in a session that a key signed in to, the key did. This reading is
    entered in the access log as `log_read` before it is answered.
    """
    now = dt.datetime.now(dt.UTC)
    end = parameters.end or now
    start = parameters.start or end - _PERIOD
    if start >= end:
        message = "must be earlier than the end of the period"
        raise invalid_input(
            [FieldError(location="query", field="from", code="empty_range", message=message)]
        )
    after = link.position(parameters, caller.listing(_RIGHTS))
    with reading(held, caller) as session:
        page = read.list_rights(session, start, end, after, parameters.limit)
        removed_before = read.removed_before(session)
    _log_reading(gate, caller, parameters)
    return AccessRightPage(
        start=start,
        end=end,
        removed_before=removed_before,
        items=[access_right(right, now) for right in page.items],
        next_cursor=link.link_next(request, response, parameters, caller.listing(_RIGHTS), page.next),
    )


def _log_reading(gate: Gated, caller: Caller, parameters: PageParameters) -> None:
    """Enter what was asked for: ids, codes and times, and whose doings were looked at."""
    asked: dict[str, Any] = parameters.model_dump(mode="json", by_alias=True, exclude_none=True)
    asked.pop("cursor", None)
    gate.record(caller, gate.entry(caller, Action.LOG_READ, details=asked))
