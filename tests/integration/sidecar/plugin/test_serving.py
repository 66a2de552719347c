"""Serving comes first: whatever happens to capture, every request is answered, and a status says so."""

from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from tests.support.vllm import tiny
from tests.support.vllm.runs import job, request, run_jobs

pytestmark = pytest.mark.vllm

# What the plugin is given, and the reason for which capture must then be off.
BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"fault": "load_model"}, "error_load_model"),
    ({"fault": "execute_model"}, "error_execute_model"),
    ({"fault": "sample_tokens"}, "error_sample_tokens"),
    ({"layer": tiny.LAYERS}, "layer_out_of_range"),
    ({"request_rates": 0.5}, "bad_settings"),
]


def test_requests_are_answered_and_a_status_says_why_capture_is_off(
    tmp_path: Path, tiny_llama: Path
) -> None:
    prompts = tiny.prompts(8)
    requests = [
        request(number, prompt, max_tokens=4, ignore_eos=True) for number, prompt in enumerate(prompts)
    ]
    jobs = [
        job(tiny_llama, requests, subtext={"layer": 2, **subtext}, engine=tiny.ENGINE)
        for subtext, _ in BROKEN
    ]
    vanilla, *runs = run_jobs(
        tmp_path, [job(tiny_llama, requests, subtext=None, engine=tiny.ENGINE), *jobs]
    )

    for run, (subtext, reason) in zip(runs, BROKEN, strict=True):
        assert run.texts == vanilla.texts
        assert all(len(run.texts[str(number)]) == len(prompt) + 4 for number, prompt in enumerate(prompts))
        assert run.records == []
        last = run.statuses[-1]
        fault = subtext.get("fault")
        assert (last.enabled, last.reason, last.errors) == (False, reason, {fault: 1} if fault else {})
    assert runs[0].log.count("capture is off after an error") == 3
    assert runs[0].log.count("capture is off (") == 2


def test_without_the_key_no_attribute_of_vllm_differs_from_an_installation_without_the_plugin(
    tmp_path: Path, tiny_llama: Path
) -> None:
    found = []
    requests = [request(number, prompt, max_tokens=2) for number, prompt in enumerate(tiny.prompts(2))]
    # vLLM brings plugins of its own, which load in both processes.
    others = {point.name for point in entry_points(group="vllm.general_plugins")} - {"subtext"}
    for name, env in (("without", {"VLLM_PLUGINS": ",".join(others)}), ("with", {})):
        (tmp_path / name).mkdir()
        engine = {**tiny.ENGINE, "additional_config": {"other": 1}}
        idle = job(tiny_llama, requests, subtext=None, engine=engine, attributes=True)
        (run,) = run_jobs(tmp_path / name, [idle], env)
        assert not run.result["has_extension"]
        assert run.statuses == []
        found.append(run.result["attributes"])
    without, with_plugin = found

    assert "vllm.v1.worker.gpu_worker.Worker.execute_model" in without
    assert len(without) > 10_000
    assert with_plugin == without
