import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from subtext_sidecar.anomaly.fit import Direction
from subtext_sidecar.anomaly.reference import (
    FORMAT,
    AnomalyError,
    digest,
    load_reference,
    read_tensors,
    save_reference,
)
from subtext_sidecar.anomaly.score import CLASSES
from subtext_sidecar.contract.record import MAX_SCORES
from tests.support.screens import reference

METADATA = {
    "format": FORMAT,
    "model": "m",
    "layer": "20",
    "d_model": "4",
    "noise": "0.5",
    "first_position": "24",
    "template": json.dumps({"special": [1, 2], "words": [3]}),
    "norm_limit": "10.0",
    "probes": json.dumps({"one": 0.5}),
}


def tensors() -> dict[str, Any]:
    content = {
        "mean": np.zeros(4),
        "components": np.eye(4)[:2],
        "variances": np.ones(2),
        "location": np.zeros(3),
        "scale": np.ones(3),
        **{f"calibration_scores.{name}": np.arange(3) for name in CLASSES},
        "request_p_values": np.full((2, 3), 0.5),
        "probe.one.direction": np.eye(4)[3],
        "probe.one.mean": np.zeros(4),
    }
    return {name: value.astype(np.float32) for name, value in content.items()}


def written(path: Path, changes: dict[str, Any], metadata: dict[str, str]) -> Path:
    content = {name: value for name, value in {**tensors(), **changes}.items() if value is not None}
    save_file(content, path, {**METADATA, **metadata})
    return path


def test_a_reference_survives_its_file(tmp_path: Path) -> None:
    one = reference(directions=[Direction("a", np.arange(16.0), None, 0.5)])
    save_reference(one, tmp_path / "screen")

    other = load_reference(tmp_path / "screen")

    assert (other.model, other.layer, other.d_model) == ("smollm2", 20, 16)
    assert other.norm_limit == one.norm_limit
    for name in ("mean", "components", "variances", "location", "scale", "request_p_values"):
        assert np.array_equal(getattr(other, name), getattr(one, name))
    for name in ("noise", "first_position", "template"):
        assert getattr(other, name) == getattr(one, name)
    assert all(map(np.array_equal, other.calibration_scores, one.calibration_scores))
    assert other.probes[0].name == "a"
    assert other.probes[0].threshold == 0.5
    assert np.array_equal(other.probes[0].direction, one.probes[0].direction)


def test_the_digest_names_all_that_is_measured_with(tmp_path: Path) -> None:
    first = load_reference(written(tmp_path / "one", {}, {}))
    again = load_reference(written(tmp_path / "again", {}, {}))
    others = [
        load_reference(written(tmp_path / "another", changes, metadata))
        for changes, metadata in (
            ({"calibration_scores.answer": np.array([0, 1, 3], np.float32)}, {}),
            ({"request_p_values": np.full((2, 3), 0.25, np.float32)}, {}),
            ({}, {"noise": "0.25"}),
            ({}, {"first_position": "25"}),
            ({}, {"template": json.dumps({"special": [1], "words": [3]})}),
            ({"probe.one.mean": np.ones(4, np.float32)}, {}),
            ({}, {"model": "n"}),
            ({}, {"norm_limit": "11.0"}),
            ({}, {"probes": json.dumps({"one": 0.25})}),
        )
    ]

    assert digest(first) == digest(again)
    assert len({digest(one) for one in [first, *others]}) == 1 + len(others)


def test_the_file_of_these_tests_is_valid(tmp_path: Path) -> None:
    assert load_reference(written(tmp_path / "screen", {}, {})).calibration_n == 3


@pytest.mark.parametrize(
    ("changes", "metadata", "said"),
    [
        ({"mean": None}, {}, "mean is missing"),
        ({"mean": np.zeros(5, np.float32)}, {}, r"mean has shape \(5,\), expected \(4,\)"),
        ({"mean": np.zeros(4, np.float16)}, {}, "mean has dtype float16, expected float32"),
        ({"mean": np.full(4, np.nan, np.float32)}, {}, "mean has values that are not finite"),
        ({"components": None}, {}, "components is missing"),
        ({"components": np.ones((2, 4), np.float32)}, {}, "components must be orthonormal"),
        ({"variances": np.zeros(2, np.float32)}, {}, "variances, scale and noise must be above 0"),
        ({}, {"noise": "0"}, "variances, scale and noise must be above 0"),
        ({"calibration_scores.answer": None}, {}, "calibration_scores.answer is missing"),
        ({"request_p_values": np.zeros(3, np.float32)}, {}, r"request_p_values has shape \(3,\)"),
        ({"request_p_values": np.full((1, 1), 2.0, np.float32)}, {}, "must be from 0 to 1"),
        ({}, {"template": "[]"}, "template is no JSON object"),
        ({}, {"template": '{"special": [-1], "words": []}'}, "token ids must be whole numbers"),
        (
            {"calibration_scores.prompt": np.array([3, 2, 1], np.float32)},
            {},
            "calibration_scores must be ascending",
        ),
        ({"probe.one.direction": None}, {}, "probe.one.direction is missing"),
        ({"probe.one.direction": np.ones(4, np.float32)}, {}, "probe.one.direction must have length 1"),
        ({}, {"format": "something"}, "format is 'something'"),
        ({}, {"format": "subtext-anomaly-1"}, "this release reads 'subtext-anomaly-2'; fit it again"),
        ({}, {"model": ""}, "model is missing"),
        ({}, {"layer": "-1"}, "layer is '-1', expected a whole number"),
        ({}, {"d_model": "5"}, r"mean has shape \(4,\), expected \(5,\)"),
        ({"calibration_scores.template": np.zeros(0, np.float32)}, {}, "at least one in each class"),
        ({}, {"norm_limit": "nan"}, "norm_limit is 'nan', expected a number"),
        ({}, {"norm_limit": "-1"}, "norm_limit must be above 0"),
        ({}, {"probes": "["}, "probes is not a JSON object"),
        ({}, {"probes": '{"Bad Name": 1}'}, "probe name 'Bad Name'"),
        ({}, {"probes": '{"one": "much"}'}, "threshold of one is 'much', expected a number"),
        ({}, {"probes": json.dumps({f"p{n}": 1 for n in range(MAX_SCORES)})}, "at most 30"),
    ],
)
def test_a_broken_reference_is_refused_and_names_what_is_wrong(
    tmp_path: Path, changes: dict[str, Any], metadata: dict[str, str], said: str
) -> None:
    path = written(tmp_path / "screen", changes, metadata)

    with pytest.raises(AnomalyError, match=said) as caught:
        load_reference(path)

    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"), [(None, "cannot be read"), (b"garbage", "is not a safetensors file")]
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "screen"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(AnomalyError, match=said):
        load_reference(path)


def test_bfloat16_tensors_are_read(tmp_path: Path) -> None:
    values = np.array([[1.0, -2.0], [0.5, 3.0]], np.float32)
    data = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    header = json.dumps({"vectors": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]}}).encode()
    (tmp_path / "a").write_bytes(len(header).to_bytes(8, "little") + header + data)

    assert read_tensors(tmp_path / "a")[1]["vectors"].tolist() == values.tolist()
