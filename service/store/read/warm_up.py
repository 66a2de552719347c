"""What a connection is asked before anybody needs it, so that its backend knows every day by then.

A backend reads the catalogue of each partition that it meets first, and plans its look-ups once.
"""

import uuid
from typing import Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from service.store.tenants import scope

_NOBODY: Final = uuid.UUID(int=0)
_OF_EVERY_DAY: Final = tuple(
    map(
        text,
        (
            "SELECT subtext_time_of_explanation(:id)",
            "SELECT subtext_time_of_capture(:id, :id)",
            "SELECT count(*) FROM subtext_captures_named('{}', NULL, NULL, NULL, 1)",
            "SELECT subtext_count_named('{}', 1)",
            "SELECT count(*) FROM subtext_capture_ids_named('{}')",
            "SELECT count(*) FROM subtext_days_of_trace('', 1)",
            "SELECT count(*) FROM concept_matches WHERE explanation_id = :id",
        ),
    )
)


def look_up_nothing(session: Session) -> None:
    """Look into every day, as a reader of no tenant. Raises sqlalchemy.exc.SQLAlchemyError."""
    scope.enter(session, scope.Reach(_NOBODY))
    for query in _OF_EVERY_DAY:
        session.execute(query, {"id": _NOBODY} if ":id" in query.text else {})
