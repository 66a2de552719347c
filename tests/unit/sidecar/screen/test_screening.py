import dataclasses
from collections import Counter
from typing import Any

import msgspec
import numpy as np
import pytest

from subtext_sidecar.anomaly.fit import Direction
from subtext_sidecar.anomaly.score import Detector
from subtext_sidecar.contract.counters import SidecarCounter
from subtext_sidecar.contract.record import NO_SCORES, decode
from subtext_sidecar.local.block import Block, encode_block
from subtext_sidecar.local.policy import PolicyError, ScreenPolicy
from subtext_sidecar.screen.screening import Screening, ScreenOutcome
from subtext_sidecar.shipper.rows import Rows, make_record, measure
from tests.support.records import block_header
from tests.support.screens import answers, benign, reference

PROBE = Direction("deceit", np.random.default_rng(8).standard_normal(16), None, None)
FOREIGN = np.random.default_rng(3).standard_normal(16)
DETECTOR = Detector(reference(directions=[PROBE]))


def ordinary(count: int) -> np.ndarray:
    """Benign rows that this screen does not find."""
    vectors = benign(4 * count, seed=21)
    measured = DETECTOR.measure(
        vectors, np.linalg.norm(vectors, axis=1).astype(np.float64), answers(len(vectors))
    )
    quiet = (measured.p_values > 0.05) & ~DETECTOR.probes_found(measured).any(axis=1)
    return vectors[quiet][:count]


def rows_of(vectors: Any, **changes: Any) -> Rows:
    content = np.asarray(vectors, "<f4").tobytes()
    header = block_header(content, len(vectors), **changes)
    assert encode_block(header)
    return measure(Block(header, content))


def strict(rate: float = 0.001, **changes: Any) -> ScreenPolicy:
    """A baseline that passes hardly anything, so that what passes was found."""
    return ScreenPolicy(baseline_rate=rate, **changes)


def reasons(taken: ScreenOutcome) -> dict[int, str]:
    return {kept.row: kept.reason for kept in taken.kept}


def test_without_a_reference_and_a_policy_every_row_passes_unchanged() -> None:
    taken = Screening(None, ScreenPolicy(), 0.0).take(rows_of(benign(5)))

    assert [(kept.row, kept.probability, kept.baseline_probability) for kept in taken.kept] == [
        (row, 0.25, 0.25) for row in range(5)
    ]
    assert {kept.reason for kept in taken.kept} == {"decode"}
    assert {bytes(kept.scores) for kept in taken.kept} == {bytes(NO_SCORES)}
    assert not taken.counts
    assert taken.verdicts == {"unscreened": 5}


def test_found_rows_pass_with_their_reason_and_the_others_are_counted_as_thinned() -> None:
    vectors = ordinary(6)
    vectors[2] = FOREIGN
    vectors[5] = vectors[5] / 100 + 5 * PROBE.direction

    taken = Screening(DETECTOR, strict(), 0.0).take(rows_of(vectors))

    assert reasons(taken) == {2: "screen_anomaly", 5: "screen_probe_deceit"}
    assert all(kept.baseline_probability == 0.0 for kept in taken.kept)
    assert all(kept.probability == 0.25 for kept in taken.kept)
    assert taken.counts == {
        ("uniform", "thinned"): 3,
        ("opt_in", "thinned"): 1,
        ("opt_in", "screened_anomaly"): 1,
        ("uniform", "screened_probe"): 1,
    }
    assert taken.verdicts == {"ordinary": 4, "anomaly": 1, "probe": 1}


def test_a_found_row_of_the_baseline_keeps_its_own_reason_and_has_both_probabilities() -> None:
    taken = Screening(DETECTOR, ScreenPolicy(), 0.0).take(rows_of([FOREIGN]))

    (kept,) = taken.kept
    assert (kept.reason, kept.probability, kept.baseline_probability) == ("decode", 0.25, 0.25)
    assert taken.counts == {("uniform", "screened_anomaly"): 1}


def test_scores_go_with_every_screened_row() -> None:
    taken = Screening(DETECTOR, ScreenPolicy(), 0.0).take(rows_of(ordinary(3)))

    for kept in taken.kept:
        scores = msgspec.msgpack.decode(kept.scores)
        assert list(scores) == ["anomaly", "anomaly_p_value", "probe_deceit"]
        assert 0.05 < scores["anomaly_p_value"] <= 1


def test_the_rows_of_one_request_pass_or_go_together() -> None:
    rows = rows_of(ordinary(200))
    screening = Screening(DETECTOR, ScreenPolicy(baseline_rate=0.5), 0.0)

    kept = {one.row for one in screening.take(rows).kept}

    assert 60 < len(kept) < 140
    assert all((row ^ 1) in kept for row in kept)


@pytest.mark.parametrize("changes", [{"model": "other"}, {"layer": 3}])
def test_rows_that_the_reference_is_not_for_pass_by_the_baseline_alone(changes: dict[str, Any]) -> None:
    screening = Screening(DETECTOR, strict(), 0.0)

    taken = screening.take(rows_of([FOREIGN] * 4, **changes))

    assert taken.verdicts == {"unscreened": 4}
    assert taken.kept == []


def test_a_row_that_is_not_finite_is_left_out_and_the_others_are_judged_right() -> None:
    vectors = ordinary(4)
    vectors[1, 0] = np.inf
    vectors[3] = FOREIGN

    taken = Screening(DETECTOR, strict(), 0.0).take(rows_of(vectors))

    assert reasons(taken) == {3: "screen_anomaly"}
    assert sum(taken.verdicts.values()) == 3


def test_the_anomaly_score_can_be_switched_off() -> None:
    taken = Screening(DETECTOR, strict(anomaly_p_value=None), 0.0).take(rows_of([FOREIGN]))

    assert taken.kept == []
    assert taken.verdicts == {"ordinary": 1}


def test_a_p_value_that_the_reference_cannot_reach_is_refused_and_the_old_policy_stays() -> None:
    screening = Screening(DETECTOR, strict(), 0.0)

    with pytest.raises(PolicyError, match="the reference has 2000 calibration rows"):
        screening.set_policy(ScreenPolicy(anomaly_p_value=1e-6))

    assert screening.rates.baseline == 0.001


def test_rates_adapt_once_a_second_to_what_arrived() -> None:
    screening = Screening(None, ScreenPolicy(rows_per_second=10.0), 0.0)
    rows = rows_of(benign(100))
    screening.take(rows)
    screening.adapt(0.9)
    assert screening.rates.baseline == 1.0

    screening.adapt(1.0)

    assert screening.rates.baseline < 0.1
    assert len(screening.take(rows).kept) < 40


def test_every_kept_row_makes_a_record_that_a_worker_accepts() -> None:
    rows = rows_of(np.concatenate([ordinary(3), FOREIGN[None]]))
    taken = Screening(DETECTOR, ScreenPolicy(baseline_rate=0.7), 0.0).take(rows)

    records = [decode(*make_record(rows, kept)) for kept in taken.kept]

    assert [record.header.position for record in records] == [20 + kept.row for kept in taken.kept]
    strata = Counter(rows.requests[kept.row].stratum for kept in taken.kept)
    assert Counter(record.header.request.stratum for record in records) == strata


def of_canaries(rows: Rows, *canaries: int) -> Rows:
    requests = [
        msgspec.structs.replace(one, stratum="canary", canary="0f" * 16) if row in canaries else one
        for row, one in enumerate(rows.requests)
    ]
    return dataclasses.replace(rows, requests=requests)


@pytest.mark.parametrize("policy", [strict(), ScreenPolicy()])
def test_a_canary_passes_whole_and_is_part_of_nothing_that_tells_of_traffic(policy: ScreenPolicy) -> None:
    vectors = np.concatenate([ordinary(3), FOREIGN[None]])
    screening = Screening(DETECTOR, policy, 0.0)

    taken = screening.take(of_canaries(rows_of(vectors), 1, 3))

    kept = {one.row: one for one in taken.kept}
    assert kept.keys() >= {1, 3}
    for row in (1, 3):
        assert (kept[row].probability, kept[row].baseline_probability) == (0.25, 0.25)
    assert sum(taken.verdicts.values()) == 2
    assert taken.verdicts["anomaly"] == 0
    assert taken.counts["canary", SidecarCounter.THINNED] == 0


def test_canaries_do_not_move_the_rates_of_the_screen() -> None:
    budgeted = ScreenPolicy(baseline_rate=1.0, rows_per_second=1.0)
    vectors = np.concatenate([ordinary(40), np.repeat(FOREIGN[None], 40, axis=0)])
    with_canaries, without = (Screening(DETECTOR, budgeted, 0.0) for _ in range(2))

    with_canaries.take(of_canaries(rows_of(vectors), *range(len(vectors))))
    for screening in (with_canaries, without):
        screening.adapt(60.0)

    assert with_canaries.rates == without.rates
