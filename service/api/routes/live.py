"""What happens now: newest readings, incidents and counts, once or as a stream of events."""

import datetime as dt
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Header, Query, Request

from service.api.deps import Held, ReadsCoverage, reading
from service.api.http.responses import problems
from service.api.live import stream
from service.api.live.hub import Part
from service.api.live.look import listener_of, look
from service.api.parameters import Absent, NoParameters
from service.api.schemas.live import Live

router = APIRouter(tags=["coverage"])
_STREAMED: Final = (
    "One answer, or with `Accept: text/event-stream` a stream of events: `coverage`, `readings` and"
    " `incidents`, each with what the answer has under that name, whole, whenever it changed; `looked` with"
    " `as_of`, and `away: true` while the store cannot be asked; `end` with the `reason` before it ends."
)


@router.get(
    "/live",
    summary="Tell what happens now",
    response_model=Live,
    responses={
        int(HTTPStatus.OK): {
            "description": _STREAMED,
            "content": {stream.MEDIA_TYPE: {"schema": {"type": "string"}}},
        },
        **problems(HTTPStatus.TOO_MANY_REQUESTS),
    },
)
def get_live(
    held: Held,
    caller: ReadsCoverage,
    request: Request,
    _parameters: Annotated[NoParameters, Query()],
    last_event_id: Annotated[
        str | Absent,
        Header(
            alias="Last-Event-ID",
            description="Of the last event of a stream before: what did not change since is not told again."
            " Any other text counts as none.",
        ),
    ] = None,
) -> Live | stream.EventStream:
    """Return the newest readings by their places, undecided incidents, and the counts of the last minutes.

    Nothing of it shows text. A stream looks every two seconds, for all listeners of a tenant at once; what
    it tells replaces what it told before, so nothing is lost by reading slowly or by beginning again. It
    ends when the key or session ends or grants something else.
    """
    listener = listener_of(caller)
    if stream.MEDIA_TYPE in request.headers.get("accept", ""):
        return stream.EventStream(
            held.live, listener, last_event_id or "", heartbeat_seconds=stream.HEARTBEAT_SECONDS
        )
    now = dt.datetime.now(dt.UTC)
    with reading(held, caller) as session:
        parts = {part: look(session, part, now) if part in listener.parts else None for part in Part}
    return Live.model_validate({"as_of": now, **parts})
