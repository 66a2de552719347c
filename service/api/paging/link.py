"""From a listing's parameters to a position in it, and from a page to the link to the next."""

from collections.abc import Sequence
from typing import Final
from urllib.parse import quote, urlencode

from fastapi import Request, Response

from service.api.paging import cursor
from service.api.parameters import PageParameters
from service.errors import FieldError, invalid_input
from service.store.read.page import Position

# What a path may hold besides letters and digits; "%", because it is written as the client wrote it.
_OF_PATHS: Final = "/%:@!$&'()*+,;=-._~"


def position(parameters: PageParameters, listing: str) -> Position | None:
    """Return where the page starts, None for the first; raises 422 for a broken cursor."""
    if parameters.cursor is None:
        return None
    try:
        return cursor.decode(parameters.cursor, parameters.binding(listing))
    except cursor.CursorError as error:
        wrong = FieldError(location="query", field="cursor", code=error.code, message=str(error))
        raise invalid_input([wrong]) from error


def link_next(
    request: Request, response: Response, parameters: PageParameters, listing: str, after: Position | None
) -> str | None:
    """Return the next page's cursor and set its Link header (RFC 8288); None on the last page."""
    if after is None:
        return None
    made = cursor.encode(after, parameters.binding(listing))
    kept: Sequence[tuple[str, str]] = [
        (name, value) for name, value in request.query_params.multi_items() if name != "cursor"
    ]
    # Relative, so that it is right behind any proxy and no Host header can bend it. Not the decoded path:
    # a client's id in it may hold line breaks.
    path = quote(request.scope["raw_path"], safe=_OF_PATHS)
    response.headers["Link"] = f'<{path}?{urlencode([*kept, ("cursor", made)])}>; rel="next"'
    return made
