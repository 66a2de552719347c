"""A policy's dry run as asked for and as answered."""

import datetime as dt
from collections.abc import Sequence
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.api.parameters import Name, Time
from service.api.schemas.answer import Answer
from service.api.vocabulary import Stratum
from service.policy import dry_run
from service.store.read.dry_run import Followed

LABEL: Final = (
    "What the policy would have taken of the requests that came, on average over the draw. Nothing was "
    "sampled for it, and no process follows the policy because of it."
)


class ProposedPolicy(BaseModel):
    """A policy and the period to try it on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Name = Field(description="Served model name.", examples=["SmolLM2-135M-Instruct"])
    start: Time = Field(alias="from", description="Start of the period, inclusive; widened to its minute.")
    end: Time = Field(alias="to", description="End of the period, exclusive; at most 31 days later.")
    policy: dict[str, Any] = Field(
        description="The policy document, as the sidecar's policy file has it: sections `capture` and "
        "`screen`. A field that is left out has its default, never what is in force.",
    )


class DryRunFigure(Answer):
    """A number that would have been expected."""

    expected: float | None = Field(
        description="On average over the draw; null: it cannot be told.", examples=[120.0]
    )
    lower: float = Field(examples=[96.3])
    upper: float = Field(examples=[143.7])
    basis: Literal["exact", "estimate", "bounds"] = Field(
        description="`exact`: the mean follows from counts alone, and the draw keeps within the limits at "
        "least 95 times in 100 for any traffic; `estimate`: from requests that were taken, within the "
        "limits about 95 times in 100; `bounds`: no mean is known, only what it cannot exceed."
    )


class DryRunSeen(Answer):
    """What was counted of the stratum in the period, under what was in force."""

    requests: int = Field(description="Seen.", examples=[1200])
    sampled: int = Field(description="Requests of them that were sampled.", examples=[600])
    rows: int = Field(description="Rows that were chosen, whatever became of them.", examples=[7300])
    decoded: int = Field(description="Rows whose explanation was stored.", examples=[7150])


class DryRunStratum(Answer):
    """One stratum under the proposed policy."""

    stratum: Stratum
    was: DryRunSeen
    candidates: int = Field(
        description="The denominator: requests that would be of this stratum. A wish that is honoured "
        "moves a request, and one that no longer is moves it back.",
        examples=[1200],
    )
    rate: float = Field(description="With which probability each is taken.", examples=[0.1])
    requests: DryRunFigure
    rows: DryRunFigure = Field(description="Rows that would be chosen.")
    decoded: DryRunFigure = Field(description="Rows that would reach the decoder.")


class DryRunLimit(Answer):
    """Something that the figures do not tell."""

    code: str = Field(examples=["which_requests"])
    detail: str


class FollowedPolicy(Answer):
    """A capture policy that an engine ran in the period."""

    digest: str
    content: dict[str, Any] | None = Field(description="Null: nobody reported it.")
    since: dt.datetime = Field(description="UTC.")
    until: dt.datetime = Field(description="When it was heard last, UTC.")


class PolicyDryRun(Answer):
    """What a policy would have taken."""

    model: str
    start: dt.datetime = Field(serialization_alias="from", description="Inclusive, UTC.")
    end: dt.datetime = Field(serialization_alias="to", description="Exclusive, UTC.")
    label: str = Field(default=LABEL, description="What to show beside it.")
    policy: dict[str, Any] = Field(description="The proposal, whole: with every default.")
    followed: list[FollowedPolicy] = Field(description="What was in force, as engines reported it.")
    strata: list[DryRunStratum]
    readings: int = Field(
        description="Requests whose stored readings tell how other rules for rows would do; 0: none was "
        "needed, or none is stored.",
        examples=[412],
    )
    limits: list[DryRunLimit] = Field(description="What cannot be told, and what the figures rest on.")


def outcome(one: dry_run.Outcome) -> DryRunStratum:
    """Return the answer for one stratum."""
    return DryRunStratum.model_validate(
        {"was": DryRunSeen.model_validate(one.seen)}
        | {
            name: DryRunFigure.model_validate(getattr(one, name))
            for name in ("requests", "rows", "decoded")
        }
        | {name: getattr(one, name) for name in ("stratum", "candidates", "rate")}
    )


def followed(found: Sequence[Followed]) -> list[FollowedPolicy]:
    """Return the answer for what was in force."""
    return [
        FollowedPolicy(digest=one.digest, content=one.content, since=one.began_at, until=one.until)
        for one in found
    ]
