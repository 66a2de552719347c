"""Configuration: what was in force at a time, and when it changed."""

import datetime as dt
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field

from service.api.deps import Held, ReadsCoverage, reading
from service.api.http.responses import problems
from service.api.paging import link
from service.api.parameters import Absent, Name, NoParameters, PageParameters, Parameters, Time, Truth
from service.api.schemas.configuration import (
    ConfigurationChangePage,
    ConfigurationInForce,
    ConfigurationVersion,
    ConfigurationVersionList,
    change,
    in_force,
)
from service.api.vocabulary import ConfigurationKind
from service.errors import FieldError, ProblemError, invalid_input
from service.store.configuration import read
from service.store.configuration.period import HOLDS

router = APIRouter(tags=["configuration"])
_LISTING: Final = "configuration changes"
Digest = Annotated[
    str, Path(pattern="^[0-9a-f]{64}$", description="As rows, contents and answers name a version.")
]


class ConfigurationParameters(Parameters):
    """At which time, and of which model."""

    at: Time | Absent = Field(default=None, description="Default: now, by the database's clock.")
    model: Name | Absent = Field(default=None, description="Served model name; default: all.")


class ChangeParameters(PageParameters):
    """Filters of the listing; all given ones must hold."""

    model: Name | Absent = Field(default=None, description="Served model name.")
    kind: ConfigurationKind | Absent = Field(default=None, description="What the configuration is of.")
    start: Time | Absent = Field(default=None, alias="from", description="At this time or later.")
    end: Time | Absent = Field(default=None, alias="to", description="Before this time.")
    every_process: Truth = Field(
        default=False,
        description="Also begins and ends of single processes by which no version came or went.",
    )

    def filter(self) -> read.Filter:
        """Return the store's filter."""
        return read.Filter(
            model=self.model,
            kind=self.kind,
            start=self.start,
            end=self.end,
            every_process=self.every_process,
        )


@router.get("/configuration", summary="Tell what was in force at a time")
def get_configuration(
    held: Held, caller: ReadsCoverage, parameters: Annotated[ConfigurationParameters, Query()]
) -> ConfigurationInForce:
    """Return every version that some process ran at that time, whole, by model and kind.

    Processes report what they run every minute, and what they follow rather than what they were told. A
    report stands for five minutes; where none does, the kind is not known. While processes are replaced
    one after the other, several versions are in force, and all are listed.
    """
    with reading(held, caller) as session:
        now = read.now(session)
        at = past_time(parameters.at, now)
        found = read.list_in_force(session, at, parameters.model)
        models = {parameters.model} if parameters.model else {*read.list_models(session)}
        return in_force(at, sorted(models | {one.period.model for one in found}), found)


@router.get("/configuration/changes", summary="List changes of what was in force, newest first")
def list_configuration_changes(
    held: Held,
    caller: ReadsCoverage,
    parameters: Annotated[ChangeParameters, Query()],
    request: Request,
    response: Response,
) -> ConfigurationChangePage:
    """Return one page of the timeline: which version came to a model or left it, and by which process.

    The end of a process that never said so appears five minutes after its last report, at the time of that.
    """
    after = link.position(parameters, caller.listing(_LISTING))
    with reading(held, caller) as session:
        page = read.list_changes(session, parameters.filter(), after, parameters.limit)
    return ConfigurationChangePage(
        items=[change(one) for one in page.items],
        next_cursor=link.link_next(request, response, parameters, caller.listing(_LISTING), page.next),
    )


@router.get(
    "/configuration/versions/{digest}",
    summary="Get what a digest names",
    responses=problems(HTTPStatus.NOT_FOUND),
)
def get_configuration_version(
    held: Held, caller: ReadsCoverage, digest: Digest, _parameters: Annotated[NoParameters, Query()]
) -> ConfigurationVersionList:
    """Return the version that a sample, an explanation or another version names, at whatever time."""
    with reading(held, caller) as session:
        found = read.list_versions(session, digest)
    if not found:
        raise ProblemError(
            HTTPStatus.NOT_FOUND, "unknown_configuration", f"no configuration has the digest {digest}"
        )
    return ConfigurationVersionList(items=[ConfigurationVersion.of(view) for view in found])


def past_time(at: dt.datetime | None, now: dt.datetime) -> dt.datetime:
    """Return the time that is asked for; raises 422 when it is yet to come."""
    if at is not None and at > now + HOLDS:
        message = f"the database's clock says {now.isoformat()}; nothing is known of what is to come"
        raise invalid_input(
            [FieldError(location="query", field="at", code="in_the_future", message=message)]
        )
    return at or now
