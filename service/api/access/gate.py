"""The gate before every text, and whatever else an operation has to enter in the access log.

The entry of a read is committed before its answer is sent: when it cannot be written, there is no answer.
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from http import HTTPStatus
from typing import Annotated, Any, Final

import structlog
from fastapi import Depends, Header, Request
from sqlalchemy.exc import ProgrammingError, SQLAlchemyError

from service.api.access.disclosure import Disclosure, Withholding, capture_of
from service.api.access.purpose import (
    CODES,
    DESCRIPTION,
    HEADER,
    PATTERN,
    PurposeError,
    StatedPurpose,
    parse,
)
from service.api.deps import Caller, Held, Resources, enter_denial, operation_of, require, writing
from service.api.parameters import Absent
from service.auth import Scope
from service.errors import FieldError, ProblemError, invalid_input
from service.store.access.tables import Action, SubjectKind
from service.store.access.write import Entry, Subjects, add_entry
from service.store.read import explanations
from service.store.tables import Sample

_log: Final = structlog.get_logger(__name__)
_RETRY_AFTER_SECONDS: Final = "5"


async def stated_purpose(
    request: Request,
    _value: Annotated[
        str | Absent,
        Header(alias=HEADER, description=DESCRIPTION, json_schema_extra={"pattern": PATTERN}),
    ] = None,
) -> StatedPurpose | None:
    """Return the purpose that the caller states; the 422 names the codes."""
    try:
        return parse(request.headers.getlist(HEADER))
    except PurposeError as error:
        wrong = FieldError(location="header", field=HEADER, code=error.code, message=str(error))
        raise invalid_input([wrong]) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Enters one request's doings in the log."""

    held: Resources
    operation: str
    purpose: StatedPurpose | None

    def disclose(
        self,
        caller: Caller,
        views: Sequence[explanations.View],
        samples: Iterable[Sample] = (),
        searched: str | None = None,
    ) -> Disclosure:
        """Return what an answer with these explanations and samples may show, and log that it is read.

        Raises the 503 when it cannot be logged. An answer without anything to show makes no entry, but
        where texts were ``searched`` for words: that none has them says something of each. The entry then
        has the words' digest, which tells who knows them that it was these: they may be a name.
        """
        if not caller.may_read_text:
            return Disclosure(withholding=Withholding.MISSING_SCOPE)
        if self.purpose is None:
            return Disclosure(withholding=Withholding.MISSING_PURPOSE)
        ids = [view.explanation.id for view in views]
        shown = [*(view.sample for view in views), *samples]
        captures = list(dict.fromkeys(map(capture_of, shown)))
        if captures or searched is not None:
            subjects = Subjects(kind=SubjectKind.EXPLANATION, ids=ids, captures=captures)
            details = {} if searched is None else {"words_sha256": sha256(searched.encode()).hexdigest()}
            self.record(caller, self.entry(caller, Action.READ_TEXT, subjects, details))
            self.held.metrics.observe_text_read(self.purpose.code)
        return Disclosure(explanations=frozenset(ids), captures=frozenset(captures), withholding=None)

    def entry(
        self,
        caller: Caller,
        action: Action,
        subjects: Subjects | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> Entry:
        """Return the entry of what this request does; a write adds it in its own transaction."""
        return Entry(
            action=action,
            operation=self.operation,
            **caller.names,
            subjects=subjects,
            details=details or {},
            purpose=self.purpose.code if self.purpose else None,
            purpose_note=self.purpose.note if self.purpose else None,
            status=HTTPStatus.OK,
        )

    def require(self, caller: Caller, scopes: Sequence[str]) -> None:
        """Raise the 403, and enter it, unless the caller has these scopes beside the operation's own."""
        require(self.held, self.operation, caller, scopes)

    def require_text(self, caller: Caller, what: str) -> None:
        """Raise the 403 or the 422 unless the caller may read text and says what for."""
        self.require(caller, [Scope.EXPLANATIONS_READ_TEXT])
        self.check_purpose(f"{what} reads texts, so it needs a purpose")

    def refuse(self, caller: Caller, code: str, detail: str) -> ProblemError:
        """Enter that the caller may not do this, and return the 403 that says why."""
        enter_denial(self.held, self.operation, caller)
        return ProblemError(HTTPStatus.FORBIDDEN, code, detail)

    def check_purpose(self, why: str) -> None:
        """Raise the 422 unless the caller states what it does this for; ``why`` says what needs one."""
        if self.purpose is None:
            message = f"{why}: write CODE or CODE; note with one of {CODES}"
            wrong = FieldError(location="header", field=HEADER, code="purpose_required", message=message)
            raise invalid_input([wrong])

    def record(self, caller: Caller, entry: Entry) -> None:
        """Commit the entry of a read, alone; raises the 503 when it cannot be written."""
        try:
            with writing(self.held, caller) as session:
                add_entry(session, entry)
        except SQLAlchemyError as error:
            self.held.metrics.observe_access_not_logged(entry.action)
            if isinstance(error, ProgrammingError):
                raise  # an old schema, of which the handlers say more
            _log.warning("access_not_logged", action=entry.action, error_type=type(error).__name__)
            raise _not_logged(entry.action) from error


async def gate(
    held: Held, request: Request, purpose: Annotated[StatedPurpose | None, Depends(stated_purpose)]
) -> Gate:
    """Return the gate of one request."""
    return Gate(held=held, operation=operation_of(request), purpose=purpose)


Gated = Annotated[Gate, Depends(gate)]


def one(kind: SubjectKind, identity: uuid.UUID) -> Subjects:
    """Return the subjects of what concerns one thing."""
    return Subjects(kind=kind, ids=[identity])


def _not_logged(action: Action) -> ProblemError:
    detail = "that this is read cannot be written to the access log just now, so it is not shown; try again"
    if action is Action.READ_TEXT:
        detail += f", or ask without {HEADER} for the answer without text"
    return ProblemError(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "access_not_logged",
        detail,
        headers={"Retry-After": _RETRY_AFTER_SECONDS},
    )
