"""Policies: what a proposed one would have taken. The one in force is the sidecar's file."""

import datetime as dt
import json
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Query
from msgspec import ValidationError as UnreadableError
from msgspec import convert, structs

from service.api.deps import Held, ReadsCoverage, reading
from service.api.http.responses import problems
from service.api.parameters import NoParameters
from service.api.routes.coverage import whole_steps
from service.api.schemas.policy import (
    DryRunLimit,
    PolicyDryRun,
    ProposedPolicy,
    followed,
    outcome,
)
from service.errors import FieldError, ProblemError, invalid_input
from service.policy.dry_run import Past, row_rules, run
from service.store.configuration.period import HOLDS
from service.store.read import dry_run, prevalence
from service.store.read.coverage import Range
from subtext_sidecar.contract.sampling.policy import (
    CapturePolicy,
    Policies,
    PolicyError,
    parse_document,
)

router = APIRouter(tags=["configuration"])
_LONGEST: Final = dt.timedelta(days=31)
_MAX_BYTES: Final = 1 << 16  # as of the policy file


@router.post(
    "/policy/dry-run",
    summary="Tell what a policy would have taken of a past period",
    responses=problems(HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND),
)
def dry_run_policy(
    held: Held,
    caller: ReadsCoverage,
    _parameters: Annotated[NoParameters, Query()],
    asked: ProposedPolicy,
) -> PolicyDryRun:
    """Return how many requests, rows and readings a proposed policy would have meant, by stratum.

    Nothing is changed: a policy comes into force by the policy file that the sidecar follows. A policy that
    the sidecar would refuse is refused here, by its field. Requests are expected exactly from those that
    came; rows from the ledger and the readings, with their interval. `limits` says what cannot be told.
    """
    policies = _parsed(asked)
    capture = policies.capture or CapturePolicy()
    wanted = _period(asked)
    with reading(held, caller) as session:
        if prevalence.find_model(session, asked.model) is None:
            raise ProblemError(
                HTTPStatus.NOT_FOUND,
                "unknown_model",
                "no model of this name is known; `GET /v1/models` lists those that are",
            )
        ran = dry_run.list_followed(session, wanted)
        past = Past(
            seconds=(wanted.end - wanted.start).total_seconds(),
            counters=dry_run.count(session, wanted),
            captures=dry_run.list_captures(session, wanted),
            row_rules=frozenset(rules for one in ran if (rules := _rules(one)) is not None),
            is_always_known=_is_always_known(ran, wanted),
            busiest_minute=dry_run.busiest_minute(session, wanted),
        )
    found = run(capture, policies.screen, past)
    return PolicyDryRun(
        model=asked.model,
        start=wanted.start,
        end=wanted.end,
        policy={"capture": structs.asdict(capture), "screen": structs.asdict(policies.screen)},
        followed=followed(ran),
        strata=[outcome(one) for one in found.outcomes],
        readings=found.readings,
        limits=[DryRunLimit.model_validate(one) for one in found.limits],
    )


def _parsed(asked: ProposedPolicy) -> Policies:
    written = json.dumps(asked.policy).encode()
    if len(written) > _MAX_BYTES:
        raise _wrong("policy", "too_long", f"a policy has at most {_MAX_BYTES} bytes")
    try:
        return parse_document(written, "policy")
    except PolicyError as error:
        field = f"policy.{error.field}" if error.field else "policy"
        raise _wrong(field, "invalid_policy", str(error)) from error


def _period(asked: ProposedPolicy) -> Range:
    if asked.start >= asked.end:
        raise _wrong("from", "empty_range", "must be earlier than the end of the period")
    if asked.end - asked.start > _LONGEST:
        raise _wrong("from", "range_too_long", f"the period may span at most {_LONGEST.days} days")
    return whole_steps(asked.start, asked.end, "minute", asked.model)


def _rules(one: dry_run.Followed) -> tuple[int, ...] | None:
    """Return the rules for rows of a policy that was in force; None where its content is not known."""
    try:
        return row_rules(convert(one.content, CapturePolicy, strict=False))
    except UnreadableError:
        return None  # of another version, whose fields are others


def _is_always_known(ran: list[dry_run.Followed], wanted: Range) -> bool:
    """Tell whether reports cover the whole period, each of them for as long as it stands."""
    known_until = wanted.start
    for one in sorted(ran, key=lambda found: found.began_at):
        if one.began_at > known_until or _rules(one) is None:
            return False
        known_until = max(known_until, one.until + HOLDS)
    return known_until >= wanted.end


def _wrong(field: str, code: str, message: str) -> ProblemError:
    return invalid_input([FieldError(location="body", field=field, code=code, message=message)])
