"""The evidence log: its newest checkpoint, and the proof that an explanation is in it."""

import uuid
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Response
from pydantic import Field

from service.api.deps import Held, ReadsAccess, reading
from service.api.http.responses import problems
from service.api.parameters import NoParameters, Parameters
from service.api.schemas.evidence import LogProof, log_proof
from service.errors import ProblemError
from service.store.evidence import proof

router = APIRouter(tags=["evidence"])
_NOTE: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "The signed note.", "content": {"text/plain": {"schema": {"type": "string"}}}}
}


class ProofParameters(Parameters):
    """Of which row."""

    explanation_id: uuid.UUID = Field(description="The explanation whose entry is asked for.")


@router.get(
    "/log/checkpoint",
    summary="Get the newest signed checkpoint of the evidence log",
    response_class=Response,
    responses=_NOTE | problems(HTTPStatus.NOT_FOUND),
)
def get_log_checkpoint(
    held: Held, caller: ReadsAccess, _parameters: Annotated[NoParameters, Query()]
) -> Response:
    """Return the C2SP signed note of the tenant's log, as the database has it.

    It is a copy: what proves that nothing was taken back is the folder of checkpoints, or one kept before.
    """
    with reading(held, caller) as session:
        newest = proof.newest_checkpoint(session, caller.reach.tenant)
        note = None if newest is None else newest.note
    if note is None:
        raise ProblemError(HTTPStatus.NOT_FOUND, "no_checkpoint", "no checkpoint was signed yet")
    return Response(note, media_type="text/plain")


@router.get(
    "/log/proof",
    summary="Prove that an explanation is in the evidence log as it is stored",
    responses=problems(HTTPStatus.NOT_FOUND),
)
def get_log_proof(
    held: Held, caller: ReadsAccess, parameters: Annotated[ProofParameters, Query()]
) -> LogProof:
    """Return the explanation's entry without its content, and the proof that leads to the signed root.

    The entry is found by committing to the row as it is now. 404 `not_in_log`: the row is from before the
    log, was changed after it was entered, or no checkpoint covers it yet.
    """
    wanted = parameters.explanation_id
    with reading(held, caller) as session:
        try:
            commitment = proof.explanation_commitment(session, wanted)
        except LookupError:
            raise ProblemError(
                HTTPStatus.NOT_FOUND, "unknown_explanation", f"no explanation {wanted} is stored"
            ) from None
        found = None if commitment is None else proof.prove(session, caller.reach.tenant, commitment)
    if found is None:
        raise ProblemError(
            HTTPStatus.NOT_FOUND,
            "not_in_log",
            f"no checkpoint covers explanation {wanted} as it is stored; see: subtext verify",
        )
    return log_proof(found)
