"""Models and decoders as answered."""

import datetime as dt
import uuid
from typing import Any

from pydantic import Field

from service.api.schemas.answer import Answer
from service.store.read import models


class Model(Answer):
    """An audited model."""

    id: uuid.UUID
    name: str = Field(description="The name that it is served under.", examples=["SmolLM2-135M-Instruct"])
    d_model: int = Field(description="Width of its residual stream.", examples=[576])
    layers: list[int] = Field(description="Layers that some decoder reads.", examples=[[23]])
    created_at: dt.datetime = Field(description="When it was first seen, UTC.")


class ModelList(Answer):
    """Every audited model, by name."""

    items: list[Model]


class Decoder(Answer):
    """An NLA pair at one version, with what its verdicts stand on."""

    id: uuid.UUID
    model: str = Field(description="The model that it reads.", examples=["SmolLM2-135M-Instruct"])
    name: str = Field(examples=["smollm2-135m-l23"])
    digest: str = Field(description="SHA-256 over its weights, meta file and calibration.")
    layer: int = Field(description="K: it reads the output of block K.", examples=[23])
    fve_baseline: float = Field(
        description="Error of predicting the calibration mean on unit vectors; FVE is measured against it.",
        examples=[0.49],
    )
    shuffled_fve_p95: float = Field(
        description="95th percentile of shuffled pairs, or the largest of `verified_above`; a reading "
        "whose position class has no threshold of its own is verified only above it and above 0.",
        examples=[0.3],
    )
    verified_above: dict[str, float] | None = Field(
        description="What a reading must exceed, by position class; null for a decoder that does not tell "
        "classes apart.",
        examples=[{"template": 0.3, "prompt": 0.12, "answer": 0.08}],
    )
    candidates: int = Field(description="How many readings it writes of each vector.", examples=[4])
    calibration_n: int = Field(description="Readings that the calibration stands on.", examples=[512])
    card: dict[str, Any] = Field(description="Measured figures, as in the model card.")
    created_at: dt.datetime = Field(description="When it was first used, UTC.")


class DecoderList(Answer):
    """Every decoder, newest first."""

    items: list[Decoder]


def model(view: models.ModelView) -> Model:
    """Return the answer for one model."""
    row = view.model
    return Model(
        id=row.id, name=row.name, d_model=row.d_model, layers=list(view.layers), created_at=row.created_at
    )


def decoder(view: models.DecoderView) -> Decoder:
    """Return the answer for one decoder."""
    row = view.decoder
    return Decoder(
        id=row.id,
        model=view.model,
        name=row.name,
        digest=row.digest,
        layer=row.layer,
        fve_baseline=row.fve_baseline,
        shuffled_fve_p95=row.shuffled_fve_p95,
        verified_above=row.verified_above,
        candidates=row.candidates,
        calibration_n=row.calibration_n,
        card=row.card,
        created_at=row.created_at,
    )
