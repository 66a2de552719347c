"""A probe's file is read strictly, scores stay probabilities, and the screen takes the same file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from subtext_sidecar.anomaly.reference import load_reference, save_tensors
from subtext_sidecar.anomaly.score import Detector, Places
from subtext_sidecar.commands import screen
from tests.support.probes import make_probe, write_probe
from tests.support.worker import D_MODEL, MODEL
from workers.judge.probes import ProbeError, check_fit, digest, load_probe


def test_what_is_written_is_read_and_named_by_what_it_holds(tmp_path: Path) -> None:
    written = write_probe(tmp_path)

    probe = load_probe(tmp_path / "bombs.safetensors")

    assert digest(probe) == written == write_probe(tmp_path, "again.safetensors")
    assert (probe.name, probe.model, probe.layer, probe.scale) == ("bombs", MODEL, 1, 4.0)
    assert (probe.threshold, probe.card, probe.d_model) == (0.9, {"positives": 3}, D_MODEL)
    np.testing.assert_array_equal(probe.direction, make_probe().direction)
    assert write_probe(tmp_path, "other.safetensors", threshold=0.8) != written


def test_a_score_is_a_probability_of_the_direction_alone() -> None:
    probe = make_probe(scale=1000.0)
    rows = np.array([[0, 1, *[0] * 6], [0, -1, *[0] * 6], [1, 0, *[0] * 6]], np.float32)

    scores = probe.score(rows)

    assert 0.0 < scores[1] < scores[2] == 0.5 < scores[0] < 1.0
    np.testing.assert_allclose(make_probe().score(rows * 1e4), make_probe().score(rows))
    with pytest.raises(ProbeError, match="probe bombs is for rows of 8"):
        probe.score(rows[:, :3])


@pytest.mark.parametrize(
    ("metadata", "tensors", "complaint"),
    [
        ({"format": "subtext-probe-9"}, {}, "format: is 'subtext-probe-9'"),
        ({"layer": "-1"}, {}, "layer: is '-1', must be a whole number"),
        ({"model": ""}, {}, "model: is missing"),
        ({"scale": "nan"}, {}, "scale: is 'nan', must be a number"),
        ({"scale": "-1"}, {}, "scale: is -1, must be above 0"),
        ({"threshold": "1"}, {}, "threshold: is 1, must be above 0 and below 1"),
        ({"card": "["}, {}, "card: is no JSON object"),
        ({}, {"direction": np.full(8, np.nan, np.float32)}, "direction: has values that are not finite"),
        ({}, {"direction": np.ones(8, np.float32)}, "direction: must have length 1"),
        ({}, {"direction": np.eye(8)[0]}, "direction: must be float32 of one axis"),
        ({}, {"mean": np.full(8, np.inf, np.float32)}, "mean: has values that are not finite"),
        ({}, {"mean": np.zeros(4, np.float32)}, "mean: has 4 values and direction 8"),
    ],
)
def test_a_broken_file_is_refused_with_the_field_and_the_fix(
    tmp_path: Path, metadata: dict[str, str], tensors: dict[str, Any], complaint: str
) -> None:
    good = {
        "format": "subtext-probe-1",
        "name": "bombs",
        "model": MODEL,
        "layer": "1",
        "scale": "4.0",
        "threshold": "0.9",
        "card": json.dumps({}),
    }
    parts = {"direction": np.eye(8, dtype=np.float32)[1], "mean": np.zeros(8, np.float32)}
    path = tmp_path / "probe.safetensors"
    save_tensors(parts | tensors, path, good | metadata)

    with pytest.raises(ProbeError) as refusal:
        load_probe(path)

    assert str(refusal.value).startswith(f"{path}: {complaint}")
    assert "fit it again with `subtext concept fit`" in str(refusal.value)


def test_what_is_no_safetensors_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no tensors")

    for name in ("text", "nowhere"):
        with pytest.raises(ProbeError, match="fit it again"):
            load_probe(tmp_path / name)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"model": "other"}, "model: it is of 'other', the decoder reads 'Fake or fake-model'"),
        ({"layer": 2}, "layer: it is of 2, the decoder reads 1"),
        ({"direction": np.ones(1, np.float32), "mean": np.zeros(1, np.float32)}, "d_model: it is of 1"),
    ],
)
def test_a_probe_of_other_vectors_is_refused_with_the_field_and_the_fix(
    change: dict[str, Any], complaint: str
) -> None:
    facts: dict[str, Any] = {"models": {MODEL, "Fake"}, "layer": 1, "d_model": D_MODEL}
    check_fit([make_probe()], **facts)

    with pytest.raises(ProbeError) as refusal:
        check_fit([make_probe(), make_probe(**change)], **facts)

    assert f"probe 'bombs': {complaint}" in str(refusal.value)
    assert "fit one of that" in str(refusal.value)


def test_the_screen_takes_the_same_file_and_finds_the_same_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    rows = (rng.standard_normal((4000, D_MODEL)) + 1.0).astype(np.float32)
    benign = {"vectors": rows, "documents": np.arange(len(rows))}
    save_tensors(benign, tmp_path / "benign.safetensors")
    write_probe(tmp_path)
    reference = tmp_path / "anomaly.safetensors"

    status = screen(
        [
            *("fit", "--activations", str(tmp_path / "benign.safetensors"), "--model", MODEL),
            *("--layer", "1", "--output", str(reference)),
            *("--probe", f"bombs={tmp_path / 'bombs.safetensors'}"),
        ]
    )

    assert status == 0, capsys.readouterr().err
    detector = Detector(load_reference(reference))
    nowhere = np.zeros(len(rows), np.int64)
    measured = detector.score(rows, Places(nowhere, nowhere, nowhere > 0))
    found = detector.probes_found(measured)[:, 0]
    probe = make_probe()
    scores = probe.score(rows)
    is_clear = np.abs(scores - probe.threshold) > 1e-5  # rounding of float32
    assert 0 < found.sum() < len(rows)
    np.testing.assert_array_equal(found[is_clear], (scores > probe.threshold)[is_clear])
