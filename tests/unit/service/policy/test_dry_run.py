import random
from collections.abc import Sequence

import pytest

from service.policy.dry_run import LEAST_REQUESTS, Answer, Outcome, Past, Row, row_rules, run
from subtext_sidecar.contract.counters import PluginCounter, Stratum
from subtext_sidecar.contract.sampling.policy import CapturePolicy, ScreenPolicy
from subtext_sidecar.plugin.sampling import rule

CONTEXT = 4096
WAS = CapturePolicy(request_rate=0.5)
ALL = ScreenPolicy()


def chance_of(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311  # the same at every run


def rows_of(policy: CapturePolicy, offset: int, prompt: int, answer: int) -> list[Row]:
    """Return what the plugin's own rule takes of one request that is taken."""
    choice = rule.choose(policy, rule.Draw(0, offset), prompt, policy.request_rate, CONTEXT)
    found, position = [], rule.next_position(choice, 0)
    while position < prompt + answer:
        found.append(
            Row(
                position=position,
                is_prompt=position < prompt,
                probability=rule.probability_of(choice, position),
            )
        )
        position = rule.next_position(choice, position + 1)
    return found


def lengths(chance: random.Random, number: int) -> list[tuple[int, int]]:
    return [(chance.randint(12, 60), int(chance.expovariate(1 / 80)) + 1) for _ in range(number)]


def sampled(
    policy: CapturePolicy, chance: random.Random, requests: Sequence[tuple[int, int]]
) -> list[list[Row]]:
    taken = [one for one in requests if chance.random() < policy.request_rate]
    return [rows_of(policy, chance.getrandbits(56), *one) for one in taken]


def past(requests: int, captures: list[list[Row]], was: CapturePolicy = WAS, **changes: object) -> Past:
    values = {
        "seconds": 3600.0,
        "counters": {
            Stratum.UNIFORM: {
                PluginCounter.REQUESTS_SEEN: requests,
                PluginCounter.REQUESTS_SAMPLED: len(captures),
                PluginCounter.ROWS_SAMPLED: sum(map(len, captures)),
            }
        },
        "captures": captures,
        "row_rules": frozenset({row_rules(was)}),
        "is_always_known": True,
        **changes,
    }
    return Past(**values)  # type: ignore[arg-type]  # a test's own mapping


def uniform(answer: Answer) -> Outcome:
    return next(one for one in answer.outcomes if one.stratum == Stratum.UNIFORM)


def codes(answer: Answer) -> set[str]:
    return {limit.code for limit in answer.limits}


def test_requests_are_expected_exactly_whatever_is_stored() -> None:
    answer = run(CapturePolicy(request_rate=0.1), ALL, past(1000, []))

    found = uniform(answer)
    assert (found.requests.expected, found.requests.basis) == (100.0, "exact")
    assert found.requests.lower < 100.0 < found.requests.upper
    assert (found.rows.expected, found.rows.basis) == (None, "bounds")
    assert found.rows.upper == found.requests.upper * 64
    assert "too_few_readings" in codes(answer)


def test_a_lower_rate_takes_its_share_of_what_the_ledger_counts() -> None:
    chance = chance_of(1)
    captures = sampled(WAS, chance, lengths(chance, 400))

    answer = run(CapturePolicy(request_rate=0.25), ALL, past(400, captures))

    found = uniform(answer)
    mean = sum(map(len, captures)) / len(captures)
    assert found.rows.expected == pytest.approx(100 * mean)
    assert answer.readings == 0
    assert "other_row_rules" not in codes(answer)


@pytest.mark.parametrize(
    "proposed",
    [
        CapturePolicy(request_rate=0.5, decode_stride=16),
        CapturePolicy(request_rate=1.0, window=4),
        CapturePolicy(request_rate=0.2, prompt_window=8),
        CapturePolicy(request_rate=0.5, skip_first=30),
        CapturePolicy(request_rate=0.5, max_rows_per_request=8),
    ],
    ids=["stride", "window", "prompt", "skip", "most"],
)
def test_rows_by_other_rules_lie_within_their_interval(proposed: CapturePolicy) -> None:
    covered = 0
    for seed in range(40):
        chance = chance_of(seed)
        requests = lengths(chance, 300)
        found = uniform(run(proposed, ALL, past(300, sampled(WAS, chance, requests))))
        actual = sum(map(len, sampled(proposed, chance, requests)))
        covered += found.rows.lower <= actual <= found.rows.upper
        assert found.rows.basis == "estimate"
    assert covered >= 36


def test_requests_that_asked_are_moved_to_where_the_proposal_puts_them() -> None:
    counters = {
        Stratum.UNIFORM: {
            PluginCounter.REQUESTS_SEEN: 100,
            PluginCounter.OPT_IN_NOT_HONOURED: 7,
            PluginCounter.OPT_OUT_NOT_HONOURED: 3,
        },
        Stratum.CANARY: {PluginCounter.REQUESTS_SEEN: 2},
    }
    proposed = CapturePolicy(
        request_rate=0.5, honour_opt_in=True, honour_opt_out=True, rows_per_second=1000.0
    )

    answer = run(proposed, ALL, past(0, [], counters=counters))

    assert {one.stratum: (one.candidates, one.requests.expected) for one in answer.outcomes} == {
        "uniform": (90, 45.0),
        "opt_in": (7, 7.0),
        "opt_out": (3, 0.0),
        "canary": (2, 2.0),
    }


def test_what_asked_and_was_honoured_is_drawn_like_any_other_where_it_is_not() -> None:
    counters = {
        Stratum.OPT_IN: {PluginCounter.REQUESTS_SEEN: 10},
        Stratum.OPT_OUT: {PluginCounter.REQUESTS_SEEN: 20},
    }

    answer = run(CapturePolicy(request_rate=0.1), ALL, past(0, [], counters=counters))

    assert uniform(answer).requests.expected == pytest.approx(3.0)


def test_a_budget_that_may_bind_leaves_bounds_alone() -> None:
    chance = chance_of(2)
    captures = sampled(WAS, chance, lengths(chance, 400))
    proposed = CapturePolicy(request_rate=0.5, rows_per_second=0.01)

    answer = run(proposed, ALL, past(400, captures, busiest_minute=50))

    found = uniform(answer)
    assert (found.rows.expected, found.rows.lower, found.rows.upper) == (None, 0.0, 36.0)
    assert found.requests.expected is None
    assert "budget" in codes(answer)


def test_what_the_screen_would_add_is_not_guessed() -> None:
    chance = chance_of(3)
    captures = sampled(WAS, chance, lengths(chance, 400))

    screened = run(WAS, ScreenPolicy(baseline_rate=0.25), past(400, captures))
    plain = run(WAS, ScreenPolicy(baseline_rate=0.25, anomaly_p_value=None), past(400, captures))

    decoded, rows = uniform(screened).decoded, uniform(screened).rows
    assert (decoded.expected, decoded.basis) == (None, "bounds")
    assert (decoded.lower, decoded.upper) == (rows.lower * 0.25, rows.upper)
    assert "screen" in codes(screened)
    assert rows.expected is not None
    assert uniform(plain).decoded.expected == pytest.approx(rows.expected * 0.25)


def test_the_decoder_gets_no_more_than_its_budget() -> None:
    chance = chance_of(4)
    captures = sampled(WAS, chance, lengths(chance, 400))

    answer = run(WAS, ScreenPolicy(rows_per_second=0.01), past(400, captures))

    decoded = uniform(answer).decoded
    assert decoded.upper == 36.0
    assert decoded.expected is None


def test_too_few_requests_have_no_estimate_of_rows() -> None:
    chance = chance_of(5)
    captures = sampled(CapturePolicy(), chance, lengths(chance, LEAST_REQUESTS - 1))

    assert uniform(run(CapturePolicy(), ALL, past(19, captures))).rows.expected is None
