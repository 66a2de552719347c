"""From shipped adapters to a calibrated decoder, with a toy model in the real engine."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.unit.nla import toy
from workers.judge.anomalies import AnomalyReference
from workers.nla.assemble import assemble
from workers.nla.calibrate import calibrate
from workers.nla.nla_decoder import NlaDecoder
from workers.nla.verbalizer import EngineSettings

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

    arguments = ["--decoder-dir", str(decoder_dir), "--vectors", str(vectors)]
    status = calibrate([*arguments, "--limit", "20", "--max-new-tokens", "8"])

    assert status == 0
    assert "random_vector_verified_share: " in capsys.readouterr().err
    decoder = NlaDecoder.open(decoder_dir, EngineSettings(max_new_tokens=8))
    try:
        readings = decoder.read(rows[:4])
    finally:
        decoder.close()
    assert decoder.identity.is_calibrated
    assert decoder.identity.calibration_n == 20
    assert decoder.identity.digest != decoder.pair_digest
    assert decoder.identity.card["calibration"]["verified_share"]["n"] == 20
    assert [reading.verified for reading in readings] == [
        reading.fve > decoder.identity.shuffled_fve_p95 for reading in readings
    ]
    assert decoder.calibration is not None
    scores = AnomalyReference.from_arrays(decoder.calibration.anomaly).score(rows).p_values
    assert scores.shape == (VECTORS,)


def test_a_decoder_that_does_not_fit_ends_the_command_with_its_reason(
    untrained_pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file({"vectors": np.ones((2, 4), np.float32)}, tmp_path / "vectors.safetensors")

    status = calibrate(
        ["--decoder-dir", str(untrained_pair), "--vectors", str(tmp_path / "vectors.safetensors")]
    )

    assert status == 2
    assert "vectors: must be (n, d_model)" in capsys.readouterr().err
