"""Serving comes first: whatever happens to capture, every request is answered, and a status says so."""

from pathlib import Path
from typing import Any

import pytest

from tests.integration.capture.runs import run_engine

pytestmark = pytest.mark.vllm


@pytest.mark.parametrize("fault", ["load_model", "execute_model", "sample_tokens"])
def test_a_hook_that_raises_turns_capture_off_and_leaves_requests_alone(
    tmp_path: Path, model_dir: Path, prompts: list[list[int]], fault: str
) -> None:
    run = run_engine(tmp_path, model_dir, prompts[:8], subtext={"fault": fault}, sampling={"max_tokens": 8})

    assert len(run.texts) == 8
    assert all(len(tokens) > len(prompts[int(number)]) for number, tokens in run.texts.items())
    assert run.records == []
    last = run.statuses[-1]
    assert (last.enabled, last.reason, last.errors) == (False, f"error_{fault}", {fault: 1})
    assert run.log.count("capture is off after an error") == 1


@pytest.mark.parametrize(
    ("subtext", "reason"), [({"layer": 30}, "layer_out_of_range"), ({"request_rates": 0.5}, "bad_settings")]
)
def test_a_configuration_that_cannot_be_captured_is_refused_and_served(
    tmp_path: Path, model_dir: Path, prompts: list[list[int]], subtext: dict[str, Any], reason: str
) -> None:
    run = run_engine(tmp_path, model_dir, prompts[:4], subtext=subtext, sampling={"max_tokens": 8})

    assert len(run.texts) == 4
    assert run.records == []
    assert (run.statuses[-1].enabled, run.statuses[-1].reason) == (False, reason)
    assert f"capture is off ({reason})" in run.log


def test_without_the_key_no_attribute_of_vllm_differs_from_an_installation_without_the_plugin(
    tmp_path: Path, model_dir: Path, prompts: list[list[int]]
) -> None:
    found = []
    for name, env in (("without", {"VLLM_PLUGINS": ""}), ("with", {})):
        folder = tmp_path / name
        folder.mkdir()
        engine = {"additional_config": {"other": 1}}
        run = run_engine(
            folder,
            model_dir,
            prompts[:2],
            subtext=None,
            engine=engine,
            env=env,
            attributes=True,
            sampling={"max_tokens": 2},
        )
        assert not run.result["has_extension"]
        assert run.statuses == []
        found.append(run.result["attributes"])
    without, with_plugin = found

    assert "vllm.v1.worker.gpu_worker.Worker.execute_model" in without
    assert len(without) > 10_000
    assert with_plugin == without
