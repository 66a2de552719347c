"""Discoveries: requests that are anomalies among the requests of their window."""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from service.api.deps import Held, ReadsFlags, reading
from service.api.paging import link
from service.api.parameters import Absent, Name, PageParameters, RequestId, Time
from service.api.schemas.discovery import DiscoveryPage, request_test
from service.store.read import discoveries

router = APIRouter(tags=["discoveries"])
_LISTING: Final = "discoveries"


class DiscoveryParameters(PageParameters):
    """Filters of the listing; all given ones must hold."""

    model: Name | Absent = Field(default=None, description="Served model name.")
    request: RequestId | Absent = Field(default=None, description="The audited request's id.")
    captured_after: Time | Absent = Field(default=None, description="Last capture at this time or later.")
    captured_before: Time | Absent = Field(default=None, description="First capture before this time.")

    def filter(self) -> discoveries.Filter:
        """Return the store's filter."""
        return discoveries.Filter(
            model=self.model,
            request_id=self.request,
            captured_after=self.captured_after,
            captured_before=self.captured_before,
        )


@router.get("/discoveries", summary="List discoveries, newest tested first")
def list_discoveries(
    held: Held,
    caller: ReadsFlags,
    parameters: Annotated[DiscoveryParameters, Query()],
    request: Request,
    response: Response,
) -> DiscoveryPage:
    """Return one page of requests that are anomalies, each with the window it was found in.

    Each request is tested once, with all others of its window. A discovery is unlike the traffic of the
    reference; that does not say that it is harmful. `GET /v1/requests/{request_id}` shows the tests of
    requests that are none.
    """
    after = link.position(parameters, caller.listing(_LISTING))
    with reading(held, caller) as session:
        page = discoveries.list_discoveries(session, parameters.filter(), after, parameters.limit)
    return DiscoveryPage(
        items=[request_test(view) for view in page.items],
        next_cursor=link.link_next(request, response, parameters, caller.listing(_LISTING), page.next),
    )
