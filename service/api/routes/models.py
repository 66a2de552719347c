"""The audited models and the decoders that read them."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from service.api.deps import Held, ReadsExplanations, reading
from service.api.parameters import Absent, Name, NoParameters, Parameters
from service.api.schemas.model import DecoderList, ModelList, decoder, model
from service.store.read import models

router = APIRouter(tags=["models"])


class DecoderParameters(Parameters):
    """Which decoders to list."""

    model: Name | Absent = Field(default=None, description="Served model name; default: all.")


@router.get("/models", summary="List audited models")
def list_models(
    held: Held, caller: ReadsExplanations, _parameters: Annotated[NoParameters, Query()]
) -> ModelList:
    """Return every audited model by name; there are as many as a deployment serves, so no pages."""
    with reading(held, caller) as session:
        return ModelList(items=[model(view) for view in models.list_models(session)])


@router.get("/decoders", summary="List decoders")
def list_decoders(
    held: Held, caller: ReadsExplanations, parameters: Annotated[DecoderParameters, Query()]
) -> DecoderList:
    """Return every decoder with its identity, its calibration and its card, newest first."""
    with reading(held, caller) as session:
        return DecoderList(
            items=[decoder(view) for view in models.list_decoders(session, parameters.model)]
        )
