"""Serving comes first: whatever happens to capture, every request is answered, and a status says so."""

from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from subtext_sidecar.plugin.activation import EXTENSION
from tests.integration.capture.runs import job, run_jobs

pytestmark = pytest.mark.vllm

# What the plugin is given, and the reason for which capture must then be off.
BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"fault": "load_model"}, "error_load_model"),
    ({"fault": "execute_model"}, "error_execute_model"),
    ({"fault": "sample_tokens"}, "error_sample_tokens"),
    ({"layer": 30}, "layer_out_of_range"),
    ({"request_rates": 0.5}, "bad_settings"),
]


def test_requests_are_answered_and_a_status_says_why_capture_is_off(
    tmp_path: Path, model_dir: Path, prompts: list[list[int]]
) -> None:
    engine = {"worker_extension_cls": EXTENSION}
    jobs = [
        job(model_dir, prompts[:8], subtext=subtext, engine=engine, sampling={"max_tokens": 4})
        for subtext, _ in BROKEN
    ]

    runs = run_jobs(tmp_path, jobs)

    for run, (subtext, reason) in zip(runs, BROKEN, strict=True):
        assert len(run.texts) == 8
        for number, tokens in run.texts.items():
            prompt = prompts[int(number)]
            assert tokens[: len(prompt)] == prompt
            assert len(tokens) > len(prompt)
        assert run.records == []
        last = run.statuses[-1]
        fault = subtext.get("fault")
        assert (last.enabled, last.reason, last.errors) == (False, reason, {fault: 1} if fault else {})
    assert runs[0].log.count("capture is off after an error") == 3
    assert runs[0].log.count("capture is off (") == 2


def test_without_the_key_no_attribute_of_vllm_differs_from_an_installation_without_the_plugin(
    tmp_path: Path, model_dir: Path, prompts: list[list[int]]
) -> None:
    found = []
    # vLLM brings plugins of its own, which load in both processes.
    others = {point.name for point in entry_points(group="vllm.general_plugins")} - {"subtext"}
    for name, env in (("without", {"VLLM_PLUGINS": ",".join(others)}), ("with", {})):
        (tmp_path / name).mkdir()
        idle = job(
            model_dir,
            prompts[:2],
            subtext=None,
            engine={"additional_config": {"other": 1}},
            attributes=True,
            sampling={"max_tokens": 2},
        )
        (run,) = run_jobs(tmp_path / name, [idle], env)
        assert not run.result["has_extension"]
        assert run.statuses == []
        found.append(run.result["attributes"])
    without, with_plugin = found

    assert "vllm.v1.worker.gpu_worker.Worker.execute_model" in without
    assert len(without) > 10_000
    assert with_plugin == without
