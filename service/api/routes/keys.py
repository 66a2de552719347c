"""API keys: which there are, making one that may do no more than its maker, and revoking one."""

import datetime as dt
import uuid
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response

from service import auth
from service.api.access.gate import Gated, one
from service.api.deps import Caller, Held, ReadsKeys, WritesKeys, reading, writing
from service.api.http.responses import problems
from service.api.paging import link
from service.api.parameters import NoParameters, PageParameters
from service.api.schemas.key import (
    MOST_DAYS,
    AskedKey,
    KeyPage,
    MadeKey,
    RevokedKey,
    exceeds,
    grantable,
    listed_key,
)
from service.errors import FieldError, Problem, ProblemError, invalid_input
from service.store import keys
from service.store.access.tables import Action, SubjectKind
from service.store.access.write import Subjects, add_entry
from service.store.tenants import row_security

router = APIRouter(tags=["access"])
_LISTING: Final = "API keys"
_WHY: Final = "keys are made and revoked for a stated purpose"
_REFUSED: Final[dict[keys.Making, str]] = {
    "unknown_key": "own_secret is of no valid key of this tenant",
    "not_allowed": "the key of own_secret lacks the scope keys:write",
    "other_scopes": "the key of own_secret lacks scopes that the new key would have",
    "other_models": "the key of own_secret is for fewer models than the new key would be",
    "too_long": f"a key expires within {MOST_DAYS} days",
}


@router.get("/keys", summary="List API keys, newest first")
def list_keys(
    *,
    held: Held,
    caller: ReadsKeys,
    gate: Gated,
    parameters: Annotated[PageParameters, Query()],
    request: Request,
    response: Response,
) -> KeyPage:
    """Return one page of keys, revoked and expired ones too, and what the caller may give to a new one.

    No secret is kept, so none is shown. This reading is entered in the access log as `log_read`.
    """
    after = link.position(parameters, caller.listing(_LISTING))
    now = held.clock()
    with reading(held, caller) as session:
        page = keys.list_page(session, after, parameters.limit)
        items = [listed_key(key, caller, now) for key in page.items]
    gate.record(caller, gate.entry(caller, Action.LOG_READ, details={"limit": parameters.limit}))
    return KeyPage(
        items=items,
        next_cursor=link.link_next(request, response, parameters, caller.listing(_LISTING), page.next),
        **grantable(caller),
    )


@router.post("/keys", summary="Make an API key", responses=problems(HTTPStatus.BAD_REQUEST))
def make_key(
    held: Held,
    caller: WritesKeys,
    gate: Gated,
    _parameters: Annotated[NoParameters, Query()],
    asked: AskedKey,
    response: Response,
) -> MadeKey:
    """Make a key of the caller's tenant and return its secret, which is shown this once.

    It may do no more than the caller and the key of `own_secret` may: neither more scopes nor more models.
    The database sees to the latter by the secret itself, so that a stolen session or a service that was
    taken over makes no key. It needs a purpose (`Subtext-Purpose`) and is entered in the access log.
    """
    gate.check_purpose(_WHY)
    gate.require(caller, asked.granted)
    models = _models(asked, caller)
    secret, now = auth.new_secret(), held.clock()
    wanted = keys.NewKey(
        id=uuid.uuid4(),
        name=asked.name,
        secret_sha256=auth.digest(secret),
        scopes=asked.granted,
        role=asked.role,
        models=models,
        expires_at=now + dt.timedelta(days=asked.expires_in_days),
    )
    with writing(held, caller) as session:
        if models is not None and (unprotected := row_security.list_open(session.connection())):
            raise ProblemError(
                HTTPStatus.CONFLICT,
                "no_row_security",
                f"table {unprotected[0]} has no row-level security, so the key would read every model;"
                " run `subtext migrate`",
            )
        made = keys.make_key(session, wanted, asked.own_secret.get_secret_value())
        if made == "made":
            details: dict[str, Any] = {"role": asked.role, "scopes": asked.granted, "models": models}
            details["expires_at"] = wanted.expires_at.isoformat(timespec="seconds")
            subjects = one(SubjectKind.API_KEY, wanted.id)
            found = keys.get_key_by_id(session, wanted.id)
            # Not always the caller's: somebody who signed in sends a secret that he was given.
            details["made_by"] = None if found is None else str(found.made_by)
            add_entry(session, gate.entry(caller, Action.KEY_CHANGE, subjects, details=details))
    if made != "made" or found is None:
        raise gate.refuse(caller, f"own_secret_{made}", _REFUSED[made])
    response.headers["Cache-Control"] = "no-store"
    return MadeKey(key=listed_key(found, caller, now), secret=secret)


@router.post(
    "/keys/{key_id}/revoke",
    summary="Revoke an API key",
    responses={
        **problems(HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND),
        int(HTTPStatus.CONFLICT): {"model": Problem, "description": "It is revoked already."},
    },
)
def revoke_key(
    held: Held,
    caller: WritesKeys,
    gate: Gated,
    key_id: uuid.UUID,
    _parameters: Annotated[NoParameters, Query()],
) -> RevokedKey:
    """Revoke a key for good, with the sessions that it began and all keys that it made; return it.

    What those made goes too, however long the line: nobody keeps a way in by a key that he made in time.

    A key that may do more than the caller is revoked by one that may as much, or with `subtext key revoke`.
    It needs a purpose (`Subtext-Purpose`) and is entered in the access log.
    """
    gate.check_purpose(_WHY)
    with reading(held, caller) as session:
        found = keys.get_key_by_id(session, key_id)
    if found is None:
        raise ProblemError(HTTPStatus.NOT_FOUND, "unknown_key", "there is no key with this id")
    if exceeds(found, caller):
        detail = "this key may do more than the caller; revoke it with: subtext key revoke"
        raise gate.refuse(caller, "key_may_do_more", detail)
    with writing(held, caller) as session:
        if not keys.withdraw_key(session, key_id):
            raise ProblemError(HTTPStatus.CONFLICT, "revoked_already", "this key is revoked already")
        went = keys.list_revoked_with(session, key_id)
        subjects = Subjects(kind=SubjectKind.API_KEY, ids=[key_id, *went])
        add_entry(session, gate.entry(caller, Action.KEY_CHANGE, subjects))
        found = keys.get_key_by_id(session, key_id)
        if found is None:
            raise LookupError("a key that was just revoked is gone")
        told = listed_key(found, caller, held.clock())
        return RevokedKey(**told.model_dump(), revoked_with=went)


def _models(asked: AskedKey, caller: Caller) -> list[str] | None:
    """Return the models that the key shall read: by default those of its maker; raises the 422."""
    own = caller.reach.models
    if asked.models is None:
        return None if own is None else sorted(own)
    wanted = sorted(set(asked.models))
    if own is not None and not set(wanted) <= set(own):
        message = f"the caller itself is for these models alone: {', '.join(sorted(own))}"
        raise invalid_input(
            [FieldError(location="body", field="models", code="other_models", message=message)]
        )
    return wanted
