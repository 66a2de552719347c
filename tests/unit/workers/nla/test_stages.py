"""What a pair of our own makes of a vector before its engine runs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from transformers import AutoTokenizer

from tests.support.nla import toy
from workers.nla.checkpoint.labels import load_labels
from workers.nla.checkpoint.meta import parse_meta
from workers.nla.checkpoint.projector import Projector, load_projector
from workers.nla.claims import first_sentence
from workers.nla.engine.injector import Injector
from workers.nla.errors import MetaError

VECTORS = np.random.default_rng(1).standard_normal((20, toy.D_MODEL)).astype(np.float32) * 7


@pytest.fixture(scope="module")
def tokenizer(model_dir: Path) -> Any:
    return AutoTokenizer.from_pretrained(model_dir)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    toy.write_stages(tmp_path)
    return tmp_path


def load(folder: Path, rows: int = toy.ROWS, mean: str = "mean") -> Projector:
    return load_projector(
        folder / "projector.safetensors", d_model=toy.D_MODEL, rows=rows, scale=toy.SCALE, mean=mean
    )


def test_a_vector_becomes_rows_by_one_linear_layer_of_its_centred_direction(folder: Path) -> None:
    rows = load(folder).project(VECTORS)

    arrays = load_file(folder / "projector.safetensors")
    unit = VECTORS[4] / np.linalg.norm(VECTORS[4])
    expected = arrays["weight"] @ ((unit - arrays["mean"]) / toy.SCALE) + arrays["bias"]
    assert rows.shape == (20, toy.ROWS, toy.D_MODEL)
    assert rows[4].ravel() == pytest.approx(expected, abs=1e-5)
    assert load(folder).project(VECTORS * 3) == pytest.approx(rows, abs=1e-5)


def test_a_projector_of_another_shape_is_refused_with_both_shapes(folder: Path) -> None:
    with pytest.raises(
        MetaError, match=r"weight: must be \(128, 64\), is \(192, 64\); it belongs to another"
    ):
        load(folder, rows=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays: arrays.pop("mean"), r"mean: must be \(64,\), is nothing"),
        (
            lambda arrays: arrays.update(bias=arrays["bias"] * np.nan),
            "bias: holds numbers that are not finite",
        ),
    ],
)
def test_a_broken_projector_is_named(
    folder: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    arrays = load_file(folder / "projector.safetensors")
    change(arrays)
    save_file(arrays, folder / "projector.safetensors")

    with pytest.raises(MetaError, match=message):
        load(folder)


def test_the_mean_may_have_another_name(folder: Path) -> None:
    arrays = load_file(folder / "projector.safetensors")
    arrays["layer_mean"] = arrays.pop("mean")
    save_file(arrays, folder / "projector.safetensors")

    assert load(folder, mean="layer_mean").mean == pytest.approx(arrays["layer_mean"])


def test_missing_and_broken_files_are_named(folder: Path) -> None:
    (folder / "projector.safetensors").write_bytes(b"no")
    with pytest.raises(MetaError, match=r"projector.safetensors: not a safetensors file"):
        load(folder)
    (folder / "projector.safetensors").unlink()
    with pytest.raises(MetaError, match=r"projector.safetensors: missing; it ships with the pair"):
        load(folder)


def test_labels_are_said_only_where_they_are_sure(folder: Path) -> None:
    head = load_labels(folder, d_model=toy.D_MODEL)

    said = head.label(load(folder).centre(VECTORS))
    scores = head.score(load(folder).centre(VECTORS))

    assert scores.areas.sum(axis=1) == pytest.approx(np.ones(20), abs=1e-5)
    for labelled, areas, kinds in zip(said, scores.areas, scores.kinds, strict=True):
        assert labelled.area == ("medicine", "law")[areas.argmax()]  # of two, one has half
        assert labelled.topic is None or toy.LABEL_NAMES["topics"][labelled.topic] == labelled.area
        assert labelled.kinds == (("self-harm",) if kinds[0] >= 0.6 else ())
        assert labelled.kind_scores == pytest.approx(dict(zip(("self-harm", "fraud"), kinds, strict=True)))
    assert len({labelled.area for labelled in said}) == 2
    assert {len(labelled.kinds) for labelled in said} == {0, 1}


def test_no_area_is_named_below_its_threshold(folder: Path) -> None:
    (folder / "labels.json").write_text(json.dumps({**toy.LABEL_NAMES, "area_above": 1.01}))

    said = load_labels(folder, d_model=toy.D_MODEL).label(load(folder).centre(VECTORS))

    assert {(labelled.area, labelled.topic) for labelled in said} == {(None, None)}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"kind_above": {"fraud": 1}}, "kind_above: must name every kind exactly once"),
        ({"topics": {"rain": "weather"}}, r"belong to areas \['weather'\] that are not listed"),
        ({"hidden": 0}, "hidden: input should be greater than 0"),
        ({"hidden": 6}, r"hidden_weight: must be \(6, 64\), is \(5, 64\)"),
        ({"registers": ["one"]}, r"out_weight: must be \(8, 5\), is \(9, 5\)"),
        ({"more": 1}, "more: extra inputs are not permitted"),
    ],
)
def test_a_label_head_that_does_not_fit_its_names_is_refused(
    folder: Path, names: dict[str, Any], message: str
) -> None:
    (folder / "labels.json").write_text(json.dumps({**toy.LABEL_NAMES, **names}))

    with pytest.raises(MetaError, match=message):
        load_labels(folder, d_model=toy.D_MODEL)


def test_names_that_are_missing_or_no_json_are_named(folder: Path) -> None:
    (folder / "labels.json").write_text("{")
    with pytest.raises(MetaError, match=r"labels.json: not JSON"):
        load_labels(folder, d_model=toy.D_MODEL)
    (folder / "labels.json").unlink()
    with pytest.raises(MetaError, match=r"labels.json: missing; it ships with the pair"):
        load_labels(folder, d_model=toy.D_MODEL)


def test_no_prompt_is_longer_than_the_engine_is_told(folder: Path, tokenizer: Any) -> None:
    injector = Injector(folder, parse_meta(toy.own_meta("av"), "av"), tokenizer)

    lengths = [
        len(injector.prompt.build(500, first_sentence(labelled)).ids)
        for labelled in injector.label(VECTORS)
        if labelled is not None
    ]

    assert len(lengths) == len(VECTORS)
    assert max(lengths) <= injector.longest_prompt < 80


def test_an_official_pair_injects_the_rescaled_vector_and_labels_nothing(
    folder: Path, tokenizer: Any
) -> None:
    injector = Injector(folder, parse_meta(toy.meta("av"), "av"), tokenizer)

    rows = injector.project(VECTORS)

    assert rows.shape == (20, 1, toy.D_MODEL)
    assert np.linalg.norm(rows, axis=2) == pytest.approx(np.full((20, 1), 32), rel=1e-4)
    assert injector.label(VECTORS) == [None] * 20
    assert injector.longest_prompt == len(injector.prompt.build(0, "").ids)
