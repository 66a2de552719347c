"""The model's revision is told without reading weights, and what is not known is null."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from subtext_sidecar.plugin.vllm.model_revision import describe_model, files_digest


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"hidden_size": 8}))
    (folder / "model-1.safetensors").write_bytes(b"12345678")
    (folder / "README.md").write_text("anything")
    return folder


def described(**fields: Any) -> dict[str, Any]:
    return describe_model(SimpleNamespace(model_config=SimpleNamespace(**fields)))


def test_a_local_model_is_told_by_its_files_and_not_by_its_path(model: Path) -> None:
    found = described(model=str(model), revision=None, dtype="float32")

    assert (found["model"], found["revision"], found["dtype"]) == ("tiny", None, "float32")
    assert found["files"] == files_digest(model)


def test_a_model_of_one_file_is_told_by_its_size_and_not_by_its_path(model: Path) -> None:
    file = model / "tiny-q4.gguf"
    file.write_bytes(b"1234")
    before = described(model=str(file))
    file.write_bytes(b"12345")

    assert before["model"] == "tiny-q4.gguf"
    assert before["files"] not in {None, described(model=str(file))["files"]}


def test_another_configuration_or_size_of_weights_is_another_revision(model: Path) -> None:
    digests = [files_digest(model)]
    (model / "config.json").write_text(json.dumps({"hidden_size": 16}))
    digests.append(files_digest(model))
    (model / "model-1.safetensors").write_bytes(b"123456789")
    digests.append(files_digest(model))
    (model / "model-2.safetensors").write_bytes(b"1")
    digests.append(files_digest(model))

    assert len({*digests}) == len(digests)


def test_what_is_beside_the_model_changes_nothing(model: Path) -> None:
    before = files_digest(model)
    (model / "README.md").write_text("something else")

    assert files_digest(model) == before


def test_revision_and_commit_are_told_where_vllm_knows_them() -> None:
    found = described(
        model="nobody/no-such-model", revision="v1", hf_config=SimpleNamespace(_commit_hash="abc")
    )

    assert (found["model"], found["revision"], found["commit"]) == ("nobody/no-such-model", "v1", "abc")
    assert found["files"] is None


def test_an_engine_that_tells_nothing_is_no_error() -> None:
    assert {*described().values()} == {"", None}
