"""Coverage as answered: what was counted at every hop, what was lost, and what nobody looked at."""

import datetime as dt

from pydantic import Field

from service.api.schemas.answer import Answer, Ratio
from service.api.schemas.blind_spot import BlindSpot
from service.api.schemas.reconciliation import Reconciliation
from service.api.vocabulary import LossKind
from service.store.read import coverage
from subtext_sidecar.contract.counters import Hop


class Counts(Answer):
    """What one hop counted for one model and stratum within one step."""

    start: dt.datetime = Field(description="Start of the step, UTC.")
    hop: str = Field(examples=[*map(str, Hop)])
    model: str = Field(examples=["SmolLM2-135M-Instruct"])
    stratum: str = Field(examples=["uniform"])
    counters: dict[str, int] = Field(examples=[{"rows_sampled": 120, "rows_handed_over": 120}])


class Loss(Answer):
    """How much was lost for one reason at one hop over the whole range."""

    hop: str = Field(examples=["plugin"])
    model: str = Field(examples=["SmolLM2-135M-Instruct"])
    stratum: str = Field(
        description="`unknown` for rows that no longer told theirs: invalid and trimmed ones.",
        examples=["uniform"],
    )
    kind: LossKind = Field(
        description="`dropped`: a bound or an error; `dead_lettered`: set aside as unusable; "
        "`unobservable`: there was no activation to sample."
    )
    reason: str = Field(examples=["queue_full"])
    count: int = Field(examples=[2])


class Sums(Answer):
    """The way of rows through all hops over the whole range."""

    requests_sampled: Ratio = Field(description="Requests chosen for sampling, of requests seen.")
    rows_decoded: Ratio = Field(
        description="Activations decoded and stored, of activations sampled, whatever became of the others."
    )
    rows_thinned: int = Field(
        description="Left out by chance, with a known probability, to keep within a budget. No loss: the "
        "probabilities of the others make up for them."
    )
    rows_dropped: int = Field(description="Dropped at any hop.")
    rows_dead_lettered: int = Field(description="Set aside as unusable.")
    rows_duplicate: int = Field(description="Of a sample that was stored before.")
    rows_unsettled: int = Field(
        description="Sampled and none of the above: on its way, or lost with a killed process; "
        "`reconciliation` tells where. Negative in strata whose rows were dropped under another one."
    )


class StratumCoverage(Sums):
    """The sums of requests that are sampled by one rule, with denominators of their own."""

    stratum: str = Field(
        description="`uniform`: sampled by a hash of the capture's identity or trace; `opt_in`: the client "
        "asked, always sampled; `opt_out`: the client asked not to be, never sampled; `canary`: the "
        "operator's own control prompts, which are no traffic; `unknown`: rows that no longer told.",
        examples=["uniform"],
    )


class ModelCoverage(Sums):
    """The sums of one model over all strata of traffic, which canaries are not, and by stratum."""

    model: str = Field(examples=["SmolLM2-135M-Instruct"])
    strata: list[StratumCoverage] = Field(description="Those that counted anything, by name.")


class CoverageReport(Answer):
    """What was seen, sampled, dropped and decoded, and what was not looked at."""

    start: dt.datetime = Field(serialization_alias="from", description="Inclusive, UTC, on a step's edge.")
    end: dt.datetime = Field(serialization_alias="to", description="Exclusive, UTC, on a step's edge.")
    step: coverage.Step = Field(description="Length of one entry of `counts`.")
    models: list[ModelCoverage] = Field(description="Sums over the range, by model.")
    reconciliation: list[Reconciliation] = Field(
        description="Whether what came into each hop came out of it, by model and stratum."
    )
    losses: list[Loss] = Field(
        description="Everything lost over the range, by hop, model, stratum and reason."
    )
    counts: list[Counts] = Field(description="Every counter, by step, hop, model and stratum.")
    blind_spots: list[BlindSpot]
