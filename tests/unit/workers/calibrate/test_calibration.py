import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from subtext_sidecar.anomaly.reference import digest
from subtext_sidecar.commands import screen
from tests.support.screens import benign
from workers.calibrate.measure import (
    fit_anomaly,
    load_vectors,
    mean_vectors,
    random_vectors,
    split_documents,
)
from workers.calibrate.nulls import PARTNERS, draw_pairs
from workers.calibrate.summary import Evidence, Nulls, Vectors, summarize
from workers.nla import fidelity
from workers.nla.calibration import ANOMALY, Calibration, load_anomaly, load_calibration, save_calibration
from workers.nla.candidates import RoundTrip
from workers.nla.decoder import PositionClass
from workers.nla.engine.verbalizer import Explanation
from workers.nla.errors import CalibrationError
from workers.nla.fake import fake_identity
from workers.nla.positions import TemplateIds
from workers.nla.token_means import TokenMeans

D_MODEL = 8
N = 120
CANDIDATES = 2
TOKEN_MEANS = TokenMeans(
    np.array([3, 5]),
    np.array([1, 2]),
    np.ones((2, D_MODEL), np.float16),
    np.ones((D_MODEL + 1, D_MODEL), np.float16),
)


def read(vectors: Vectors, rebuilt: Any, expected: Any = None) -> Evidence:
    """Return evidence whose second candidate rebuilds nothing."""
    said = [
        [Explanation("said", well_formed=index % 2 == 0), Explanation("else", well_formed=True)]
        for index in range(len(rebuilt))
    ]
    away = -vectors.rows
    classes: list[PositionClass] = ["prompt" if index % 3 else "answer" for index in range(len(rebuilt))]
    stacked = np.stack([np.asarray(rebuilt, np.float32), away], axis=1)
    return Evidence(vectors, classes, expected, RoundTrip(said, stacked))


def calibrate_on(rebuild: Any, *, expected: Any = None, rebuild_null: Any = None) -> Calibration:
    """Calibrate a decoder that rebuilds vectors with `rebuild(rows, rng)`."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((N, D_MODEL)).astype(np.float32) + 1
    vectors = Vectors(rows, np.repeat(np.arange(N // 3), 3))
    real = read(vectors, rebuild(rows, rng), expected)
    pairs = draw_pairs(vectors.documents, real.classes)
    taken = vectors.take(pairs.rows)
    other = Evidence(
        taken,
        [real.classes[row] for row in pairs.rows],
        None if expected is None else expected[pairs.rows],
        RoundTrip(
            [real.trip.candidates[partner] for partner in pairs.partners], real.trip.rebuilt[pairs.partners]
        ),
    )
    nothing = rebuild_null or (lambda rows, rng: rng.standard_normal(rows.shape))
    noise, mean = random_vectors(vectors), mean_vectors(vectors, vectors)
    guess = None if expected is None else np.zeros((128, D_MODEL))
    nulls = Nulls(
        other=other,
        random=read(noise, nothing(noise.rows, rng), guess),
        mean=read(mean, nothing(mean.rows, rng), None if guess is None else guess[: len(mean.rows)]),
        empty=np.repeat(rows.mean(axis=0, keepdims=True), N, axis=0),
    )
    return summarize(
        vectors,
        real,
        nulls,
        identity=fake_identity(d_model=D_MODEL),
        pair_digest="a" * 64,
        token_means=TOKEN_MEANS,
    )


def well(rows: Any, rng: Any) -> Any:
    return rows + 0.3 * rng.standard_normal(rows.shape)


@pytest.fixture
def calibration() -> Calibration:
    return calibrate_on(well)


def test_a_decoder_that_tells_vectors_apart_verifies_them_and_not_its_nulls(
    calibration: Calibration,
) -> None:
    measured = calibration.figures.measured

    assert measured["fve"]["value"] > 0.7
    # Half of the readings lost the format.
    assert measured["verified_share"]["value"] > 0.45
    assert measured["shuffled_fve"]["value"] < 0
    assert measured["same_token_null_fve"]["value"] < measured["fve"]["value"] - 0.5
    assert measured["other_reading_verified_share"]["value"] < 0.1
    # Every null is judged, by thresholds that others set.
    assert measured["other_reading_verified_share"]["n"] == PARTNERS * N
    assert measured["random_vector_verified_share"]["value"] < 0.1
    assert measured["well_formed_share"]["value"] == pytest.approx(0.5, abs=0.05)
    assert calibration.quantile_of(1.0) == 1.0
    assert (calibration.figures.candidates, calibration.figures.n) == (CANDIDATES, N)
    assert calibration.figures.shuffled_fve_p95 == max(calibration.figures.verified_above.values())


def test_shares_are_told_of_every_class_that_was_read(calibration: Calibration) -> None:
    measured = calibration.figures.measured

    for name in ("verified_share", "other_reading_verified_share", "random_vector_verified_share"):
        assert {f"{name}_prompt", f"{name}_answer"} <= set(measured)
        assert f"{name}_template" not in measured
    assert sum(measured[f"verified_share_{kind}"]["n"] for kind in ("prompt", "answer")) == N


def test_a_decoder_that_says_the_same_of_everything_verifies_about_its_false_positive_rate() -> None:
    calibration = calibrate_on(lambda rows, _rng: np.repeat(rows.mean(axis=0, keepdims=True), len(rows), 0))

    assert calibration.figures.measured["verified_share"]["value"] < 0.06


def test_only_what_goes_beyond_the_token_is_compared_where_tokens_are_known() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((N, D_MODEL)) + 1  # those of `calibrate_on`
    expected = 0.9 * rows / np.linalg.norm(rows, axis=1, keepdims=True)

    calibration = calibrate_on(well, expected=expected)

    measured = calibration.figures.measured
    assert measured["token_mean_fve"]["value"] > measured["fve"]["value"]
    assert measured["fve_beyond_token"]["value"] < 0 < measured["fve"]["value"]
    # A good reading of what the token tells already is worth nothing.
    assert measured["verified_share"]["value"] < 0.1
    assert set(calibration.figures.verified_above.values()) == {0.0}


def test_vectors_that_nobody_had_are_kept_out_by_their_distance_from_the_mean() -> None:
    calibration = calibrate_on(well, rebuild_null=lambda rows, _rng: rows)

    figures = calibration.figures
    assert figures.typical_spread_p1 is not None
    assert figures.typical_spread_p99 is not None
    assert 0 < figures.typical_spread_p1 < figures.typical_spread_p99
    assert figures.measured["mean_vector_verified_share"]["value"] == 0
    assert figures.measured["random_vector_verified_share"]["value"] < 0.5
    assert not calibration.is_typical(calibration.mean[None]).any()
    assert calibrate_on(well).figures.typical_spread_p1 is None


def test_half_of_the_documents_are_read_and_the_other_half_sets_token_means() -> None:
    documents = np.repeat(np.arange(9), 4)

    is_read = split_documents(documents)

    assert len(set(documents[is_read])) == 5
    assert not set(documents[is_read]) & set(documents[~is_read])


def test_nulls_are_put_at_real_tokens() -> None:
    rows = np.random.default_rng(0).standard_normal((9, D_MODEL)).astype(np.float32) + 1
    vectors = Vectors(rows, np.arange(9), np.arange(9) + 50, np.array([0, 1, 0] * 3, np.uint8))

    for null in (random_vectors(vectors), mean_vectors(vectors, vectors)):
        assert set(null.given.token_ids) <= set(range(50, 59))
        assert set(null.given.phases) == {"prefill", "decode"}
        norms = np.linalg.norm(null.rows, axis=1)
        assert norms == pytest.approx(
            np.full(len(norms), np.median(np.linalg.norm(rows, axis=1))), rel=0.02
        )
    spread = fidelity.spread(
        mean_vectors(vectors, vectors).rows, fidelity.to_unit(rows.mean(axis=0)[None])[0]
    )
    assert spread.max() < 0.1


def test_a_calibration_comes_back_as_it_was_saved(calibration: Calibration, tmp_path: Path) -> None:
    save_calibration(calibration, tmp_path)

    loaded = load_calibration(tmp_path, decoder_digest="a" * 64)

    assert loaded is not None
    assert loaded.figures == calibration.figures
    assert np.array_equal(loaded.mean, calibration.mean)
    assert loaded.token_means is not None
    for name, kept in loaded.token_means._asdict().items():
        assert np.array_equal(kept, getattr(TOKEN_MEANS, name)), name


def test_a_calibration_without_tokens_knows_no_token_means(
    calibration: Calibration, tmp_path: Path
) -> None:
    save_calibration(replace(calibration, token_means=None), tmp_path)

    loaded = load_calibration(tmp_path, decoder_digest="a" * 64)

    assert loaded is not None
    assert loaded.token_means is None


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
        ({"format": 1}, "format: is 1, this release reads 2; calibrate again"),
        (
            {"verified_above": {"answer": 0.1}},
            "verified_above: must be 0 to 1 for each of template, prompt",
        ),
        ({"verified_above": {"template": 0, "prompt": 0, "answer": 2}}, "verified_above: must be 0 to 1"),
        ({"candidates": None}, "candidates: input should be a valid integer"),
        ({"n": "many"}, "n: input should be a valid integer"),
        ({"n": 0}, "out of range"),
        ({"fve_baseline": 0.0}, "out of range"),
        ({"fve_baseline": float("nan")}, "out of range"),
        ({"shuffled_fve_p95": 1.5}, "out of range"),
        ({"arrays_sha256": "0"}, "does not belong to its"),
        ({"n": 59}, "real_fve: has 120 entries, n is 59"),
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


def test_token_means_of_another_width_are_refused(calibration: Calibration, tmp_path: Path) -> None:
    broken = TOKEN_MEANS._replace(token_means=np.ones((2, 3), np.float16))
    save_calibration(replace(calibration, token_means=broken), tmp_path)

    with pytest.raises(CalibrationError, match=r"token_means: must be \(2, 8\) finite numbers"):
        load_calibration(tmp_path, decoder_digest="a" * 64)


ROWS = np.ones((40, 4), np.float32)
TOKENS, PHASES = np.arange(40), np.zeros(40, np.uint8)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"other": ROWS}, "vectors: must be"),
        ({"vectors": ROWS[:3]}, "n at least 40"),
        ({"vectors": ROWS, "documents": np.zeros(3, np.int64)}, "documents: must be one number a row"),
        ({"vectors": ROWS * 0}, "zero or not finite"),
        ({"vectors": ROWS * np.nan}, "zero or not finite"),
        ({"vectors": ROWS, "tokens": TOKENS}, "phases: must be one whole number a row"),
        ({"vectors": ROWS, "phases": PHASES}, "tokens: must be one whole number a row"),
        ({"vectors": ROWS, "tokens": TOKENS[:3], "phases": PHASES}, "tokens: must be one whole number"),
        ({"vectors": ROWS, "tokens": TOKENS - 1, "phases": PHASES}, "tokens: must be one whole number"),
        ({"vectors": ROWS, "tokens": TOKENS, "phases": PHASES + 2}, "phases: must be 0 for prefill and 1"),
    ],
)
def test_broken_calibration_vectors_are_named(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    save_file(arrays, tmp_path / "vectors.safetensors")

    with pytest.raises(CalibrationError, match=message):
        load_vectors(tmp_path / "vectors.safetensors")


def test_rows_without_documents_count_as_one_document_each(tmp_path: Path) -> None:
    save_file({"vectors": ROWS}, tmp_path / "vectors.safetensors")

    assert load_vectors(tmp_path / "vectors.safetensors").documents.tolist() == list(range(40))


def test_tokens_and_phases_are_what_a_record_would_tell(tmp_path: Path) -> None:
    phases = np.array([0, 1] * 20, np.uint8)
    save_file({"vectors": ROWS, "tokens": TOKENS, "phases": phases}, tmp_path / "vectors.safetensors")

    given = load_vectors(tmp_path / "vectors.safetensors").given

    assert given.token_ids == list(range(40))
    assert given.phases == ["prefill", "decode"] * 20


def test_calibrating_and_fitting_the_screen_give_the_same_reference(tmp_path: Path) -> None:
    rows, documents = benign(2000), np.arange(2000) // 8
    save_file({"vectors": rows, "documents": documents}, tmp_path / "vectors")
    fit = ["fit", "--activations", str(tmp_path / "vectors"), "--model", "m", "--layer", "1"]

    calibrated = fit_anomaly(
        load_vectors(tmp_path / "vectors"),
        p_value=0.01,
        model="m",
        layer=1,
        template=TemplateIds(frozenset(), frozenset()),
    )
    assert screen([*fit, "--output", str(tmp_path / ANOMALY)]) == 0

    fitted = load_anomaly(tmp_path)
    assert fitted is not None
    assert digest(calibrated) == digest(fitted)


def test_a_reference_that_no_vectors_can_give_is_refused_before_they_are_read() -> None:
    vectors = Vectors(benign(60), np.arange(60) // 3)

    with pytest.raises(CalibrationError, match=r"30 held-out rows are too few for a p-value of 0\.01"):
        fit_anomaly(
            vectors, p_value=0.01, model="m", layer=1, template=TemplateIds(frozenset(), frozenset())
        )


def test_a_decoder_without_anomaly_reference_has_none_and_a_broken_one_is_refused(tmp_path: Path) -> None:
    assert load_anomaly(tmp_path) is None

    (tmp_path / ANOMALY).write_bytes(b"garbage")

    with pytest.raises(CalibrationError, match="is not a safetensors file"):
        load_anomaly(tmp_path)
