"""Whether what came into each hop also came out of it, as answered; `service.coverage` works it out."""

import datetime as dt

from pydantic import Field

from service.api.schemas.answer import Answer
from service.api.vocabulary import Place


class HopBalance(Answer):
    """What came into one hop and what came out of it."""

    hop: Place = Field(
        validation_alias="place", description="A process, or what lies between two: `socket` and `stream`."
    )
    equation: str = Field(description="What must hold once nothing is on its way.")
    rows_in: dict[str, int] = Field(examples=[{"rows_sampled": 120}])
    rows_out: dict[str, int] = Field(examples=[{"rows_handed_over": 118, "dropped_queue_full": 2}])
    in_flight: int = Field(
        description="Came in and not out in minutes that are not settled: still on its way. Negative while "
        "counts lag behind the rows that they count.",
        examples=[0],
    )
    unattributed: int = Field(
        description="What came out under the stratum `unknown`, as invalid and trimmed rows do, and could "
        "be of this stratum; of `unknown` itself, all of it as a negative number. Over all strata: 0.",
        examples=[0],
    )
    difference: int = Field(
        description="In, less out, in flight and unattributed. Positive: lost without a count, as with a "
        "killed process. Negative: counts were lost, or counted twice.",
        examples=[0],
    )
    balanced: bool = Field(description="Whether `difference` is 0.")


class StratumBalance(Answer):
    """The hops for requests of one stratum."""

    stratum: str = Field(examples=["uniform"])
    balanced: bool = Field(description="Whether every hop is.")
    hops: list[HopBalance] = Field(validation_alias="places")


class Reconciliation(Answer):
    """The hops of one model."""

    model: str = Field(examples=["SmolLM2-135M-Instruct"])
    settled_before: dt.datetime | None = Field(
        description="What was captured before this time should have arrived: workers have since read rows "
        "that were captured ten minutes later. Null when no worker has read any row of the model."
    )
    balanced: bool = Field(description="Whether every hop is, over all strata.")
    hops: list[HopBalance] = Field(validation_alias="places", description="Over all strata.")
    strata: list[StratumBalance]
