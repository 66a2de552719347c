"""From shipped adapters to a calibrated decoder, with a toy model in the real engine."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from subtext_sidecar.anomaly.reference import digest
from subtext_sidecar.anomaly.score import Detector, Places
from tests.support.nla import toy
from tests.support.nla.untrained import given
from workers.calibrate.measure import calibrate
from workers.nla.checkpoint.assemble import assemble
from workers.nla.decoder import GivenFacts
from workers.nla.engine.nla_decoder import NlaDecoder
from workers.nla.engine.verbalizer import EngineSettings
from workers.nla.errors import CalibrationError

pytestmark = pytest.mark.vllm
VECTORS = 60


def test_a_shipped_pair_is_assembled_calibrated_and_read(
    model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = toy.write_base(tmp_path / "base", model_dir)
    decoder_dir = assemble(toy.write_shipped(tmp_path / "shipped", base), base, tmp_path / "decoder")
    rows = np.random.default_rng(0).standard_normal((VECTORS, toy.D_MODEL)).astype(np.float32) + 1
    vectors = tmp_path / "vectors.safetensors"
    save_file({"vectors": rows, "documents": np.repeat(np.arange(VECTORS // 3), 3)}, vectors)

    arguments = ["--decoder-dir", str(decoder_dir), "--vectors", str(vectors), "--candidates", "2"]
    arguments += ["--p-value", "0.4"]
    status = calibrate([*arguments, "--limit", "20", "--max-new-tokens", "8"])

    assert status == 0
    assert "random_vector_verified_share: " in capsys.readouterr().err
    with pytest.raises(CalibrationError, match=r"set SUBTEXT_CANDIDATES=2, or run"):
        NlaDecoder.open(decoder_dir, EngineSettings(candidates=3))
    decoder = NlaDecoder.open(decoder_dir, EngineSettings(max_new_tokens=8, candidates=2))
    try:
        readings = decoder.read(rows[:4], given(4))
    finally:
        decoder.close()
    assert decoder.identity.is_calibrated
    assert decoder.identity.calibration_n == 20
    assert decoder.identity.digest != decoder.pair_digest
    assert decoder.identity.card["calibration"]["verified_share"]["n"] == 20
    assert {reading.candidates for reading in readings} == {2}
    assert [reading.fve_beyond_token for reading in readings] == [None] * 4
    # Random adapters keep no format.
    assert not any(reading.verified for reading in readings)
    assert decoder.anomaly is not None
    assert (decoder.anomaly.model, decoder.anomaly.layer) == (
        decoder.identity.model,
        decoder.identity.layer,
    )
    assert decoder.identity.card["anomaly_reference"] == digest(decoder.anomaly)
    places = Places(np.arange(VECTORS), np.zeros(VECTORS, np.int64), np.zeros(VECTORS, np.bool_))
    assert Detector(decoder.anomaly).score(rows, places).p_values.shape == (VECTORS,)


def test_a_pair_of_our_own_is_calibrated_beyond_its_tokens(
    model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = toy.write_base(tmp_path / "base", model_dir)
    folder = toy.write_own_pair(tmp_path / "own", base)
    rng = np.random.default_rng(0)
    arrays = {
        "vectors": rng.standard_normal((VECTORS, toy.D_MODEL)).astype(np.float32) + 1,
        "documents": np.repeat(np.arange(VECTORS // 3), 3),
    }
    save_file(arrays, tmp_path / "vectors.safetensors")
    arguments = ["--decoder-dir", str(folder), "--vectors", str(tmp_path / "vectors.safetensors")]
    arguments += ["--limit", "20", "--max-new-tokens", "6", "--candidates", "2", "--p-value", "0.4"]
    assert calibrate(arguments) == 2
    assert "tokens: missing; this decoder is given the token" in capsys.readouterr().err

    arrays["tokens"] = rng.integers(0, 40, VECTORS)
    arrays["phases"] = rng.integers(0, 2, VECTORS).astype(np.uint8)
    save_file(arrays, tmp_path / "vectors.safetensors")
    assert calibrate(arguments) == 0

    decoder = NlaDecoder.open(folder, EngineSettings(max_new_tokens=6, candidates=2))
    try:
        taken = GivenFacts(arrays["tokens"][:4].tolist(), ["prefill", "decode"] * 2)
        readings = decoder.read(arrays["vectors"][:4], taken)
    finally:
        decoder.close()
    identity = decoder.identity
    assert {"template", "prompt", "answer"} == set(identity.verified_above)
    assert identity.candidates == 2
    assert all(reading.fve_beyond_token is not None for reading in readings)
    measured = identity.card["calibration"]
    assert {"fve_beyond_token", "token_mean_fve", "same_token_null_fve"} <= set(measured)


def test_a_decoder_that_does_not_fit_ends_the_command_with_its_reason(
    untrained_pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file({"vectors": np.ones((2, 4), np.float32)}, tmp_path / "vectors.safetensors")

    status = calibrate(
        ["--decoder-dir", str(untrained_pair), "--vectors", str(tmp_path / "vectors.safetensors")]
    )

    assert status == 2
    assert "vectors: must be (n, d_model)" in capsys.readouterr().err
