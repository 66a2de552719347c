"""One p-value of one row: the screen's and the worker's are the same number, or the row is disputed."""

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from subtext_sidecar.anomaly.score import Detector, Reference
from subtext_sidecar.local.block import Block
from subtext_sidecar.local.policy import ScreenPolicy
from subtext_sidecar.screen.screening import Screening
from subtext_sidecar.shipper.rows import measure as measure_rows
from tests.support.records import block_header
from tests.support.screens import answers, benign, reference
from workers.judge.anomalies import check_fits, measure


def screened(of: Reference, vectors: NDArray[np.float32]) -> list[dict[str, float]]:
    """The scores that the sidecar would send with the rows."""
    content = vectors.tobytes()
    header = block_header(content, len(vectors), model=of.model, layer=of.layer, d_model=of.d_model)
    rows = measure_rows(Block(header, content))
    taken = Screening(Detector(of), ScreenPolicy(), 0.0).take(rows)
    return [msgspec.msgpack.decode(kept.scores, type=dict[str, float]) for kept in taken.kept]


def rows() -> NDArray[np.float32]:
    foreign = np.random.default_rng(3).standard_normal((40, 16)).astype(np.float32)
    massive = np.full((1, 16), 1e6, np.float32)
    return np.concatenate([benign(400, seed=5), foreign, massive])


def test_the_screen_and_the_worker_give_a_row_one_p_value() -> None:
    vectors, of = rows(), reference()
    said = screened(of, vectors)

    alone = measure(Detector(of), vectors, answers(len(vectors)), [{}] * len(vectors))
    joined = measure(Detector(of), vectors, answers(len(vectors)), said)

    assert [(found.score, found.p_value) for found in joined] == [
        (one["anomaly"], one["anomaly_p_value"]) for one in said
    ]
    assert not any(found.is_disputed for found in joined)
    # A batch of one is another matrix product: the same up to the rounding of float32.
    for row in range(0, len(vectors), 20):
        (single,) = measure(Detector(of), vectors[row : row + 1], answers(1), [{}])
        assert single.score == pytest.approx(alone[row].score, abs=1e-3)
        assert single.p_value == pytest.approx(joined[row].p_value, abs=1 / of.calibration_n)


def test_a_screen_with_another_reference_is_told_and_not_believed() -> None:
    vectors = benign(400, seed=5)
    said = screened(reference(components=1), vectors)

    found = measure(Detector(reference()), vectors, answers(len(vectors)), said)

    assert found[0].p_value != said[0]["anomaly_p_value"]
    assert np.mean([one.is_disputed for one in found]) > 0.9


def test_a_row_that_no_screen_has_seen_is_measured_here() -> None:
    (found,) = measure(Detector(reference()), benign(1, seed=6), answers(1), [{"probe_deceit": 0.5}])

    assert found.calibration_n == 2000
    assert 0 < found.p_value <= 1
    assert not found.is_disputed


def test_a_massive_activation_is_no_anomaly_here_either() -> None:
    massive = np.full((1, 16), 1e6, np.float32)

    (found,) = measure(Detector(reference()), massive, answers(1), [{}])

    assert found.p_value == 1.0


def test_a_row_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match=r"have shape \(1, 5\), the anomaly reference is for rows of 16"):
        measure(Detector(reference()), np.ones((1, 5), np.float32), answers(1), [{}])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"models": {"gemma3", "other"}}, "model: it is of 'smollm2', the decoder reads 'gemma3 or other'"),
        ({"layer": 3}, "layer: it is of 20, the decoder reads 3"),
        ({"d_model": 32}, "d_model: it is of 16, the decoder reads 32"),
    ],
)
def test_a_reference_of_other_vectors_is_refused(changes: dict[str, object], said: str) -> None:
    fitting = {"models": {"smollm2", "served"}, "layer": 20, "d_model": 16}
    check_fits(reference(), **fitting)  # type: ignore[arg-type]  # parameters

    with pytest.raises(ValueError, match=f"{said}; fit one with"):
        check_fits(reference(), **(fitting | changes))  # type: ignore[arg-type]  # parameters
