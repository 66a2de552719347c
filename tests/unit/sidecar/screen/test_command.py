import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from subtext_sidecar.commands import screen
from tests.support.screens import benign


@pytest.fixture
def activations(tmp_path: Path) -> Path:
    vectors = benign(4000)
    save_file({"vectors": vectors, "documents": np.arange(4000) // 8}, tmp_path / "benign")
    return tmp_path / "benign"


def fit(activations: Path, *more: str) -> int:
    wanted = ["--model", "m", "--layer", "20", "--output", str(activations.parent / "screen")]
    return screen(["fit", "--activations", str(activations), *wanted, *more])


def said(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    one: dict[str, Any] = json.loads(capsys.readouterr().out)
    return one


def test_a_reference_is_fitted_with_probes_and_shown(
    activations: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = activations.parent
    save_file({"direction": np.ones(16, np.float32)}, folder / "p")
    save_file(
        {"direction": np.ones(16, np.float32), "threshold": np.array([0.5], np.float32)}, folder / "q"
    )

    assert fit(activations, "--probe", f"deceit={folder}/p", "--probe", f"own={folder}/q") == 0
    fitted = said(capsys)

    assert fitted["fit_rows"] == 2000
    assert set(fitted["calibration_rows"].values()) == {2000}
    assert fitted["pooled_classes"] == ["template", "prompt"]
    assert fitted["probes"]["own"] == 0.5
    assert screen(["show", str(folder / "screen")]) == 0
    assert said(capsys).items() <= fitted.items()


def test_requests_of_several_files_are_kept_apart(
    activations: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(activations, "--activations", str(activations), str(activations)) == 0

    assert said(capsys)["fit_rows"] == 4000


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--p-value", "0.001"], "it needs 10000, so about 20000 rows in all"),
        (["--probe", "Bad Name={folder}/benign"], "probe name 'Bad Name'"),
        (["--probe", "a={folder}/benign"], "direction is missing"),
        (["--probe", "a={folder}/none"], "cannot be read"),
    ],
)
def test_what_cannot_be_fitted_is_refused_with_a_message(
    activations: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert fit(activations, *(one.format(folder=activations.parent) for one in more)) == 2

    assert message in capsys.readouterr().err
    assert not (activations.parent / "screen").exists()


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"documents": np.arange(3)}, "vectors is missing"),
        ({"vectors": np.ones((3, 4), np.float32)}, "documents is missing"),
        ({"vectors": np.ones(3, np.float32), "documents": np.arange(3)}, "vectors has shape"),
        ({"vectors": np.ones((2, 4), np.float32), "documents": np.arange(3)}, "differ in length"),
    ],
)
def test_broken_activations_are_refused_with_a_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tensors: dict[str, Any], message: str
) -> None:
    save_file(tensors, tmp_path / "benign")

    assert fit(tmp_path / "benign") == 2
    assert message in capsys.readouterr().err
