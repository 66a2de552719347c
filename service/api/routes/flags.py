"""Flags: concepts found on requests with enough evidence."""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from service.api.deps import Held, ReadsFlags, reading
from service.api.paging import link
from service.api.parameters import Absent, Fidelity, Name, PageParameters, RequestId, Time
from service.api.schemas.flag import FlagPage, flag
from service.store.read import flags

router = APIRouter(tags=["flags"])
_LISTING: Final = "flags"


class FlagParameters(PageParameters):
    """Filters of the listing; all given ones must hold."""

    model: Name | Absent = Field(default=None, description="Served model name.")
    request: RequestId | Absent = Field(default=None, description="The audited request's id.")
    concept: Name | Absent = Field(default=None, description="The concept's name.")
    severity: Name | Absent = Field(default=None, description="Severity, as in the concept's definition.")
    captured_after: Time | Absent = Field(
        default=None, description="Last matching capture at this time or later."
    )
    captured_before: Time | Absent = Field(
        default=None, description="First matching capture before this time."
    )
    min_fve: Fidelity | Absent = Field(
        default=None,
        description="Enough positions match with at least this FVE for the flag to stand on them alone.",
    )
    min_cosine: Fidelity | Absent = Field(default=None, description="As `min_fve`, of the cosine.")

    def filter(self) -> flags.Filter:
        """Return the store's filter."""
        return flags.Filter(
            model=self.model,
            request_id=self.request,
            concept=self.concept,
            severity=self.severity,
            captured_after=self.captured_after,
            captured_before=self.captured_before,
            min_fve=self.min_fve,
            min_cosine=self.min_cosine,
        )


@router.get("/flags", summary="List flags, newest raised first")
def list_flags(
    held: Held,
    caller: ReadsFlags,
    parameters: Annotated[FlagParameters, Query()],
    request: Request,
    response: Response,
) -> FlagPage:
    """Return one page of flags.

    A flag says at how many of the verified positions its concept was found. Where `calibrated` is
    false, how often it is raised on benign requests is not known.

    With `min_fve` or `min_cosine` a page may have fewer flags than `limit`, or none, and a `next_cursor`:
    it looks into some hundred flags and no more.
    """
    after = link.position(parameters, caller.listing(_LISTING))
    with reading(held, caller) as session:
        page = flags.list_flags(session, parameters.filter(), after, parameters.limit)
    return FlagPage(
        items=[flag(view) for view in page.items],
        next_cursor=link.link_next(request, response, parameters, caller.listing(_LISTING), page.next),
    )
