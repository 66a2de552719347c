"""The arms are what the claim names, with policies that the plugin accepts."""

import json
from pathlib import Path

import pytest

from bench.arms import ARMS, Arm, choose_arms
from bench.ratios import Bar
from bench.servers import vllm
from deploy.local.home import Home
from deploy.local.launch import LaunchPlan
from deploy.local.ports import Ports
from subtext_sidecar.local.policy import parse_capture
from subtext_sidecar.plugin.settings import parse_settings

ROOT = Path("/srv/bench")
PLAN = LaunchPlan(
    home=Home(root=ROOT, run_dir=ROOT / "run"),
    ports=Ports(),
    model_dir=ROOT / "models" / "model",
    decoder_dir=ROOT / "decoders",
    database_url="",
    threads=2,
    is_eager=False,
)
ARM = {arm.name: arm for arm in ARMS}


def command(name: str) -> list[str]:
    return list(vllm(PLAN, ARM[name].server, 8210).command)


@pytest.mark.parametrize("arm", [arm for arm in ARMS if arm.policy is not None], ids=lambda arm: arm.name)
def test_every_policy_is_valid(arm: Arm) -> None:
    parse_capture(arm.policy, arm.name)


def test_the_bars_are_those_of_the_claim() -> None:
    bars = {arm.name: (arm.throughput, arm.itl_p99) for arm in ARMS if arm.throughput is not None}

    assert bars == {
        "idle": (Bar("at_least", 0.99), Bar("at_most", 1.05)),
        "one-percent": (Bar("at_least", 0.98), Bar("at_most", 1.05)),
        "eighth": (Bar("at_least", 0.97), Bar("at_most", 1.08)),
        "saturated": (Bar("at_least", 0.97), Bar("at_most", 1.08)),
    }


def test_the_noise_floor_is_another_process_with_the_same_command() -> None:
    assert ARM["again"].server != ARM["vanilla"].server
    assert command("again") == command("vanilla")


def test_the_captured_server_differs_from_vanilla_by_the_plugins_key_alone() -> None:
    extra = command("idle")[len(command("vanilla")) :]

    assert command("idle")[: len(command("vanilla"))] == command("vanilla")
    assert extra[0] == "--additional-config"
    settings = parse_settings(json.loads(extra[1])["subtext"])
    assert settings.socket == PLAN.home.socket
    assert len(extra) == 2


def test_arms_that_differ_by_policy_share_a_process_and_vanilla_has_its_own() -> None:
    captured = {arm.server for arm in ARMS if arm.policy is not None}

    assert len(captured) == 1
    assert ARM["vanilla"].server not in captured


def test_eager_and_vllm_lens_change_only_what_they_must() -> None:
    assert command("eager") == [*command("vanilla"), "--enforce-eager"]
    assert command("vllm-lens") == command("vanilla")
    assert vllm(PLAN, ARM["vllm-lens"].server, 1).env["PYTHONPATH"] == str(ROOT / "vllm-lens")
    assert "PYTHONPATH" not in vllm(PLAN, ARM["vanilla"].server, 1).env


def test_the_baseline_always_runs_and_a_typing_error_is_named() -> None:
    assert [arm.name for arm in choose_arms("eighth,idle")] == ["vanilla", "idle", "eighth"]
    with pytest.raises(ValueError, match="unknown idel; known are vanilla"):
        choose_arms("idel")
