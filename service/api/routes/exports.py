"""Exports: bundles that an auditor verifies offline. Each asking and each download is in the access log."""

import datetime as dt
import uuid
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse
from sqlalchemy.orm import Session

from service.api.access.gate import Gate, Gated, one
from service.api.access.purpose import CODES, HEADER
from service.api.deps import Caller, Exports, Held, Resources, reading, writing
from service.api.http.responses import problems
from service.api.paging import link
from service.api.parameters import NoParameters, PageParameters
from service.api.schemas.export import Export, ExportPage, ExportRequest, export
from service.errors import FieldError, Location, Problem, ProblemError, invalid_input
from service.evidence.entry import TRANSACTION_TIME
from service.exports import files
from service.exports.context import model_id_of
from service.exports.query import scopes_of
from service.store.access.tables import Action, SubjectKind
from service.store.access.write import add_entry
from service.store.evidence.tables import LogCheckpoint
from service.store.exports import read, write
from service.store.exports.tables import Export as Row
from service.store.exports.tables import State
from service.store.triage import Actor

router = APIRouter(tags=["exports"])
_LISTING: Final = "exports"
_LONGEST: Final = dt.timedelta(days=366)
_MEDIA_TYPE: Final = "application/zip"
_LOCATION: Final[dict[str, Any]] = {
    "description": "Where to ask what became of it.",
    "schema": {"type": "string"},
}
_FILE: Final[dict[int | str, dict[str, Any]]] = {
    status: {
        "description": what,
        "content": {_MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}},
    }
    for status, what in ((200, "The bundle."), (206, "The part of it that `Range` asked for."))
}
_NOT_THERE: Final[dict[int | str, dict[str, Any]]] = {
    int(HTTPStatus.CONFLICT): {"model": Problem, "description": "It is not ready yet; ask again later."},
    int(HTTPStatus.GONE): {"model": Problem, "description": "It failed, expired, or was erased."},
    int(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE): {"description": "`Range` lies outside of the bundle."},
}


@router.post(
    "/exports",
    status_code=HTTPStatus.ACCEPTED,
    summary="Ask for a bundle of a period, with the proofs that nothing in it is missing or changed",
    responses={
        int(HTTPStatus.ACCEPTED): {"headers": {"Location": _LOCATION}},
        **problems(HTTPStatus.BAD_REQUEST),
    },
)
def create_export(
    *,
    held: Held,
    caller: Exports,
    gate: Gated,
    _parameters: Annotated[NoParameters, Query()],
    asked: ExportRequest,
    response: Response,
) -> Export:
    """Take the request and return it; `subtext keeper` makes the file, see `state`.

    It holds what the caller may read, of his tenant and models. `subtext verify` checks it offline.
    """
    _folder(held)
    gate.require(caller, scopes_of(asked.kinds, with_text=asked.with_text))
    _check(asked, gate, dt.datetime.now(dt.UTC))
    with writing(held, caller) as session:
        _check_known(session, caller, asked)
        row = write.add_export(session, _new(asked, caller, gate))
        entry = gate.entry(caller, Action.EXPORT, one(SubjectKind.EXPORT, row.id), _details(asked))
        add_entry(session, entry)
        made = export(row)
    response.headers["Location"] = f"/v1/exports/{made.id}"
    return made


def _folder(held: Resources) -> Path:
    if held.exports is None:
        raise ProblemError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "exports_off",
            "no exports here: an operator has to set SUBTEXT_EXPORT_FOLDER and run `subtext keeper`",
        )
    return held.exports


def _check(asked: ExportRequest, gate: Gate, now: dt.datetime) -> None:
    if asked.start >= asked.end:
        raise _wrong("from", "empty_range", "must be earlier than the end of the period")
    if asked.end - asked.start > _LONGEST:
        raise _wrong("to", "range_too_long", f"must be at most {_LONGEST.days} days after the start")
    if asked.end > now - TRANSACTION_TIME:
        why = f"must lie {TRANSACTION_TIME} back: until then entries of the period may still come"
        raise _wrong("to", "period_not_over", why)
    if asked.with_text and "explanations" not in asked.kinds:
        raise _wrong("with_text", "no_text_in_kinds", "only explanations have text; leave it out")
    if asked.with_text:
        _check_purpose(gate)


def _check_purpose(gate: Gate) -> None:
    if gate.purpose is None:
        why = f"texts are handed out for a stated purpose: write CODE or CODE; note with one of {CODES}"
        raise _wrong(HEADER, "purpose_required", why, location="header")


def _check_known(session: Session, caller: Caller, asked: ExportRequest) -> None:
    if asked.model is not None and model_id_of(session, asked.model) is None:
        raise _wrong("model", "unknown_model", "no model of this name is stored; see /v1/models")
    place = (caller.reach.tenant, asked.earlier_size)
    if asked.earlier_size is not None and session.get(LogCheckpoint, place) is None:
        why = "no checkpoint of this size was signed; its second line is its size"
        raise _wrong("earlier_size", "unknown_checkpoint", why)


def _new(asked: ExportRequest, caller: Caller, gate: Gate) -> write.NewExport:
    return write.NewExport(
        kinds=sorted(map(str, asked.kinds)),
        of_model=asked.model,
        models=None if caller.reach.models is None else sorted(caller.reach.models),
        period_start=asked.start,
        period_end=asked.end,
        format=asked.format,
        with_text=asked.with_text,
        earlier_size=asked.earlier_size,
        by=Actor(**caller.names),
        purpose=None if gate.purpose is None else gate.purpose.code,
        purpose_note=None if gate.purpose is None else gate.purpose.note,
    )


def _details(asked: ExportRequest) -> dict[str, Any]:
    return asked.model_dump(mode="json", by_alias=True, exclude_none=True)


@router.get("/exports", summary="List exports, newest first")
def list_exports(
    *,
    held: Held,
    caller: Exports,
    parameters: Annotated[PageParameters, Query()],
    request: Request,
    response: Response,
) -> ExportPage:
    """Return one page of exports. Who is for some models alone meets his own."""
    after = link.position(parameters, caller.listing(_LISTING))
    with reading(held, caller) as session:
        page = read.list_exports(session, _own(caller), after, parameters.limit)
    return ExportPage(
        items=list(map(export, page.items)),
        next_cursor=link.link_next(request, response, parameters, caller.listing(_LISTING), page.next),
    )


@router.get(
    "/exports/{export_id}",
    summary="Get an export's state",
    responses=problems(HTTPStatus.NOT_FOUND),
)
def get_export(
    held: Held, caller: Exports, export_id: uuid.UUID, _parameters: Annotated[NoParameters, Query()]
) -> Export:
    """Return what was asked for and what became of it."""
    return export(_known(held, caller, export_id))


@router.get(
    "/exports/{export_id}/download",
    summary="Download an export's bundle",
    response_class=FileResponse,
    responses=_FILE | _NOT_THERE | problems(HTTPStatus.NOT_FOUND),
)
def download_export(
    held: Held,
    caller: Exports,
    gate: Gated,
    export_id: uuid.UUID,
    _parameters: Annotated[NoParameters, Query()],
) -> FileResponse:
    """Return the file, or a part of it: `Range` with `If-Range` resumes a download that was cut short.

    It needs the scopes of what is in it, and a stated purpose when that is text. Each call is entered in
    the access log as `export` before the file is sent.
    """
    folder = _folder(held)
    row = _known(held, caller, export_id)
    gate.require(caller, scopes_of(row.kinds, with_text=row.with_text))
    if row.with_text:
        _check_purpose(gate)
    path = files.path_of(folder, row.tenant_id, row.id)
    _check_ready(row, path)
    details = {"sha256": row.sha256, "with_text": row.with_text}
    gate.record(caller, gate.entry(caller, Action.EXPORT, one(SubjectKind.EXPORT, row.id), details))
    return FileResponse(
        path,
        media_type=_MEDIA_TYPE,
        filename=f"subtext-{row.id}.zip",
        headers={"ETag": f'"{row.sha256}"'},
    )


def _check_ready(row: Row, path: Path) -> None:
    if row.state in {State.WAITING, State.RUNNING}:
        raise ProblemError(
            HTTPStatus.CONFLICT,
            "export_not_ready",
            f"the export is {row.state}; ask for its state until it is ready",
            headers={"Retry-After": "5"},
        )
    if row.state != State.READY or not path.is_file():
        state = row.state if row.state != State.READY else "without a file here"
        raise ProblemError(
            HTTPStatus.GONE, "export_gone", f"the export is {state}; ask for another with POST /v1/exports"
        )


def _known(held: Resources, caller: Caller, export_id: uuid.UUID) -> Row:
    with reading(held, caller) as session:
        found = read.get_export(session, export_id, _own(caller))
    if found is None:
        raise ProblemError(HTTPStatus.NOT_FOUND, "unknown_export", "there is no export with this id")
    return found


def _own(caller: Caller) -> read.Own | None:
    """Return the exports that alone a caller meets: others may hold more than he may read."""
    models = caller.reach.models
    return None if models is None else read.Own(Actor(**caller.names), models)


def _wrong(field: str, code: str, message: str, *, location: Location = "body") -> ProblemError:
    return invalid_input([FieldError(location=location, field=field, code=code, message=message)])
