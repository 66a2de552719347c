"""What was lost, what nobody looked at, and how REST tells both."""

import dataclasses
import datetime as dt
from collections import Counter

from service.api.schemas.coverage import Loss, ModelCoverage
from service.api.schemas.reconciliation import Reconciliation
from service.coverage.balance import balances
from service.coverage.blind_spots import CODES, blind_spots
from service.coverage.count import Count, StepCounts, by_step
from service.coverage.losses import losses, sums_by_model
from subtext_sidecar.contract.counters import COUNTERS, LossKind, Stratum, loss_of

START = dt.datetime(2026, 11, 23, 5, 0, tzinfo=dt.UTC)


def count(hop: str, counter: str, value: int, *, stratum: str = "uniform", model: str = "tiny") -> Count:
    return Count(START, hop, model, stratum, counter, value, value)


COUNTS = [
    count("plugin", "requests_seen", 40),
    count("plugin", "requests_sampled", 10),
    count("plugin", "rows_sampled", 100),
    count("plugin", "dropped_queue_full", 7),
    count("plugin", "rows_sampled", 5, stratum="opt_in"),
    count("sidecar", "thinned", 20),
    count("sidecar", "dropped_trimmed", 6, stratum="unknown"),
    count("worker", "rows_decoded", 50),
    count("worker", "rows_duplicate", 3),
    count("worker", "rows_trimmed_but_read", 1, stratum="unknown"),
    count("worker", "dead_lettered_of_another_version", 2),
]


def test_sums_follow_rows_to_their_end() -> None:
    [model] = sums_by_model(COUNTS)

    assert model.requests_sampled == (10, 40)
    assert model.rows_decoded == (50, 105)
    assert (model.rows_thinned, model.rows_dropped, model.rows_duplicate) == (20, 12, 3)
    assert model.rows_dead_lettered == 2
    assert model.rows_unsettled == 105 - 50 - 20 - 12 - 3 - 2
    assert [one.stratum for one in model.strata] == ["opt_in", "uniform", "unknown"]


def test_a_stratum_narrows_the_strata_and_leaves_the_totals() -> None:
    [model] = sums_by_model(COUNTS, Stratum.OPT_IN)

    assert [one.stratum for one in model.strata] == ["opt_in"]
    assert model.rows_decoded.denominator == 105


def test_canaries_are_told_by_themselves_and_no_part_of_the_totals() -> None:
    canaries = [
        count("plugin", "requests_seen", 9, stratum="canary"),
        count("plugin", "requests_sampled", 9, stratum="canary"),
        count("plugin", "rows_sampled", 30, stratum="canary"),
        count("worker", "rows_decoded", 29, stratum="canary"),
    ]

    [with_canaries], [without] = sums_by_model([*COUNTS, *canaries]), sums_by_model(COUNTS)

    [told] = [one for one in with_canaries.strata if one.stratum == "canary"]
    assert told.requests_sampled == (9, 9)
    assert told.rows_unsettled == 1
    assert dataclasses.replace(with_canaries, strata=without.strata) == without


def test_losses_are_summed_by_reason_over_all_steps() -> None:
    later = COUNTS[3]._replace(start=START + dt.timedelta(minutes=1))

    found = losses([*COUNTS, later, count("plugin", "dropped_budget", 0)])

    assert [(loss.hop, loss.kind, loss.reason, loss.count) for loss in found] == [
        ("plugin", LossKind.DROPPED, "queue_full", 14),
        ("sidecar", LossKind.DROPPED, "trimmed", 6),
        ("worker", LossKind.DEAD_LETTERED, "of_another_version", 2),
    ]


def test_steps_hold_every_counter_of_a_hop() -> None:
    assert by_step(COUNTS)[0] == StepCounts(START, "plugin", "tiny", "opt_in", {"rows_sampled": 5})


def test_rest_answers_what_was_worked_out() -> None:
    model = ModelCoverage.model_validate(sums_by_model(COUNTS)[0]).model_dump(mode="json")
    loss = Loss.model_validate(losses(COUNTS)[0]).model_dump(mode="json")
    balance = Reconciliation.model_validate(balances(COUNTS, {"tiny": START})[0]).model_dump(mode="json")

    assert model["requests_sampled"] == {"numerator": 10, "denominator": 40, "value": 0.25}
    assert model["strata"][0]["requests_sampled"] == {"numerator": 0, "denominator": 0, "value": None}
    assert loss == {
        "hop": "plugin",
        "model": "tiny",
        "stratum": "uniform",
        "kind": "dropped",
        "reason": "queue_full",
        "count": 7,
    }
    assert balance["hops"][0]["hop"] == balance["strata"][0]["hops"][0]["hop"] == "plugin"
    assert balance["hops"][0]["difference"] == 105 - 7
    assert not balance["balanced"]


def test_everything_that_cannot_be_observed_is_explained() -> None:
    lost = [loss_of(counter) for counter in COUNTERS]
    reasons = {one.reason for one in lost if one is not None and one.kind is LossKind.UNOBSERVABLE}

    assert reasons <= CODES


def test_blind_spots_are_counted_where_they_can_be() -> None:
    counts = [
        count("plugin", "requests_seen", 9, stratum="opt_out"),
        count("plugin", "unobservable_prefix_cached", 4),
        count("plugin", "unobservable_prefix_cached", 2, stratum="opt_in"),
        count("plugin", "unobservable_something_new", 1),
        count("sidecar", "thinned", 7),
    ]

    spots = {spot.code: spot for spot in blind_spots(counts)}

    assert {code: spot.count for code, spot in spots.items() if spot.count} == {
        "opt_out": 9,
        "prefix_cached": 6,
        "something_new": 1,
        "thinned": 7,
    }
    assert "something_new" in spots["something_new"].detail
    assert Counter(spot.code for spot in blind_spots(counts)).most_common(1)[0][1] == 1
    assert {"silent_worker", "not_sampled", "unsent_counts"} <= spots.keys()


def test_canaries_are_no_blind_spot_and_their_hop_is_no_silent_one() -> None:
    canaries = [
        count("plugin", "unobservable_prefix_cached", 4, stratum="canary"),
        count("plugin", "unobservable_interrupted", 1, stratum="canary"),
        count("plugin", "requests_adapted", 2, stratum="canary"),
        count("sidecar", "thinned", 3, stratum="canary"),
    ]
    traffic = [
        count("plugin", "unobservable_prefix_cached", 5),
        count("sidecar", "rows_received", 5),
    ]

    assert blind_spots([*traffic, *canaries]) == blind_spots(traffic)
    silent = {spot.code for spot in blind_spots(canaries) if spot.code.startswith("silent_")}
    assert silent.isdisjoint({"silent_plugin", "silent_sidecar"})
