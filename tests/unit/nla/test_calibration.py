import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from workers.nla.calibrate import Nulls, Vectors, load_vectors, summarize
from workers.nla.calibration import Calibration, load_calibration, save_calibration
from workers.nla.errors import CalibrationError
from workers.nla.fake import fake_identity
from workers.nla.nla_decoder import RoundTrip
from workers.nla.verbalizer import Explanation

D_MODEL = 8


def round_trip(rebuilt: Any) -> RoundTrip:
    said = [Explanation("said", well_formed=index % 2 == 0) for index in range(len(rebuilt))]
    return RoundTrip(said, np.asarray(rebuilt, np.float32))


def calibrate_on(rebuild: Any) -> Calibration:
    """Calibrate a decoder that rebuilds vectors with `rebuild(rows, rng)`."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((60, D_MODEL)).astype(np.float32) + 1
    vectors = Vectors(rows, np.repeat(np.arange(20), 3))
    noise = rng.standard_normal((30, D_MODEL)).astype(np.float32)
    guesses = rng.standard_normal((30, D_MODEL))
    nulls = Nulls(noise, round_trip(guesses), rows.mean(axis=0, keepdims=True))
    return summarize(
        vectors,
        vectors,
        round_trip(rebuild(rows, rng)),
        nulls,
        identity=fake_identity(d_model=D_MODEL),
        pair_digest="a" * 64,
        anomaly={"precision": np.eye(D_MODEL)},
    )


@pytest.fixture
def calibration() -> Calibration:
    return calibrate_on(lambda rows, rng: rows + 0.3 * rng.standard_normal(rows.shape))


def test_a_decoder_that_tells_vectors_apart_verifies_them_and_not_its_nulls(
    calibration: Calibration,
) -> None:
    measured = calibration.figures.measured

    assert measured["fve"]["value"] > 0.7
    assert measured["verified_share"]["value"] > 0.9
    assert measured["shuffled_fve"]["value"] < 0
    assert measured["random_vector_verified_share"]["value"] < 0.2
    assert measured["well_formed_share"] == {"value": 0.5, "ci95": [0.3774, 0.6226], "n": 60}
    assert calibration.quantile_of(1.0) == 1.0


def test_a_decoder_that_says_the_same_of_everything_verifies_about_its_false_positive_rate() -> None:
    calibration = calibrate_on(lambda rows, _rng: np.repeat(rows.mean(axis=0, keepdims=True), len(rows), 0))

    assert calibration.figures.measured["verified_share"]["value"] == pytest.approx(0.05, abs=0.02)


def test_a_calibration_comes_back_as_it_was_saved(calibration: Calibration, tmp_path: Path) -> None:
    save_calibration(calibration, tmp_path)

    loaded = load_calibration(tmp_path, decoder_digest="a" * 64)

    assert loaded is not None
    assert loaded.figures == calibration.figures
    assert np.array_equal(loaded.mean, calibration.mean)
    assert np.array_equal(loaded.anomaly["precision"], np.eye(D_MODEL))


def test_a_decoder_without_calibration_has_none(tmp_path: Path) -> None:
    assert load_calibration(tmp_path, decoder_digest="a" * 64) is None


def test_a_calibration_of_another_decoder_is_refused(calibration: Calibration, tmp_path: Path) -> None:
    save_calibration(calibration, tmp_path)

    with pytest.raises(
        CalibrationError, match="decoder_digest: is aaaaaaaaaaaa, this decoder is bbbbbbbbbbbb"
    ):
        load_calibration(tmp_path, decoder_digest="b" * 64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format: is 2"),
        ({"n": "many"}, "n: input should be a valid integer"),
        ({"n": 0}, "out of range"),
        ({"fve_baseline": 0.0}, "out of range"),
        ({"fve_baseline": float("nan")}, "out of range"),
        ({"shuffled_fve_p95": 1.5}, "out of range"),
        ({"arrays_sha256": "0"}, "does not belong to its"),
        ({"n": 59}, "real_fve: has 60 entries, n is 59"),
        ({"d_model": 9}, "mean: has 8 entries, d_model is 9"),
    ],
)
def test_a_broken_figure_is_named(
    calibration: Calibration, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    save_calibration(calibration, tmp_path)
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))

    with pytest.raises(CalibrationError, match=message):
        load_calibration(tmp_path, decoder_digest="a" * 64)


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_a_broken_file_is_named(calibration: Calibration, tmp_path: Path, content: str) -> None:
    save_calibration(calibration, tmp_path)
    (tmp_path / "calibration.json").write_text(content)

    with pytest.raises(CalibrationError, match=r"calibration.json: not a calibration"):
        load_calibration(tmp_path, decoder_digest="a" * 64)


def test_missing_arrays_are_named(calibration: Calibration, tmp_path: Path) -> None:
    save_calibration(calibration, tmp_path)
    (tmp_path / "calibration.safetensors").unlink()

    with pytest.raises(CalibrationError, match=r"calibration.safetensors: missing beside"):
        load_calibration(tmp_path, decoder_digest="a" * 64)


def test_arrays_that_are_not_finite_are_refused(calibration: Calibration, tmp_path: Path) -> None:
    broken = replace(calibration, mean=np.full(D_MODEL, np.nan, np.float32))
    save_calibration(broken, tmp_path)

    with pytest.raises(CalibrationError, match="mean: must be a vector of finite numbers"):
        load_calibration(tmp_path, decoder_digest="a" * 64)


ROWS = np.ones((40, 4), np.float32)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"other": ROWS}, "vectors: must be"),
        ({"vectors": ROWS[:3]}, "n at least 40"),
        ({"vectors": ROWS, "documents": np.zeros(3, np.int64)}, "documents: must be one number a row"),
        ({"vectors": ROWS * 0}, "zero or not finite"),
        ({"vectors": ROWS * np.nan}, "zero or not finite"),
    ],
)
def test_broken_calibration_vectors_are_named(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    save_file(arrays, tmp_path / "vectors.safetensors")

    with pytest.raises(CalibrationError, match=message):
        load_vectors(tmp_path / "vectors.safetensors")


def test_rows_without_documents_count_as_one_document_each(tmp_path: Path) -> None:
    save_file({"vectors": ROWS}, tmp_path / "vectors.safetensors")

    assert load_vectors(tmp_path / "vectors.safetensors").documents.tolist() == list(range(40))
