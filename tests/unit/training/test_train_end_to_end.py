"""A toy model goes from nothing to a shipped pair with its card, through the command itself."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from workers.training.checkpoint import read_position
from workers.training.cli import train

ROOT = Path(__file__).resolve().parents[3]


def test_a_run_goes_from_prompts_to_a_card_and_a_second_call_changes_no_weight(
    toy_home: Path, toy_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUBTEXT_HOME", str(toy_home))

    assert train(["--config", str(toy_config)]) == 0

    shipped = toy_config.parent / "shipped"
    card = json.loads((shipped / "card.json").read_text())
    assert card["figures"]["round_trip"]["fve"]["n"] == 8
    assert len(card["figures"]["reconstructor"]["true_text_fve"]["ci95"]) == 2
    assert "toy" in (shipped / "README.md").read_text()
    for part in ("av/adapter_config.json", "av/nla_meta.yaml", "ar/head.safetensors", "ar/nla_meta.yaml"):
        assert (shipped / part).exists()
    weights = (shipped / "av" / "adapter_model.safetensors").read_bytes()
    assert train(["--config", str(toy_config)]) == 0
    assert (shipped / "av" / "adapter_model.safetensors").read_bytes() == weights


def test_a_run_killed_in_training_goes_on_to_the_same_loss(
    toy_home: Path, toy_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUBTEXT_HOME", str(toy_home))
    settings = yaml.safe_load(toy_config.read_text())
    settings["ar"] |= {"checkpoint_minutes": 0.0, "max_examples": 800}
    toy_config.write_text(yaml.safe_dump(settings, allow_unicode=True))
    checkpoint = toy_home / "runs" / settings["name"] / "ar.safetensors"
    command = "import sys; from workers.commands import train; sys.exit(train(sys.argv[1:]))"
    arguments = [sys.executable, "-c", command, "--config", str(toy_config), "--until", "ar"]
    process = subprocess.Popen(arguments, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.01)  # the condition is a file of another process; nothing else tells of it
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not read_position(checkpoint).done

    train(["--config", str(toy_config), "--until", "ar"])

    resumed = read_position(checkpoint)
    checkpoint.unlink()
    train(["--config", str(toy_config), "--until", "ar"])
    undisturbed = read_position(checkpoint)
    assert resumed.done
    assert resumed.loss == pytest.approx(undisturbed.loss, rel=0.01)


def test_the_shipped_adapters_rebuild_both_halves_with_peft_alone(
    toy_home: Path, toy_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import peft
    import torch
    import transformers
    from safetensors.torch import load_file

    monkeypatch.setenv("SUBTEXT_HOME", str(toy_home))
    train(["--config", str(toy_config)])
    shipped, model = toy_config.parent / "shipped", toy_home / "models" / "toy"

    base = transformers.AutoModelForCausalLM.from_pretrained(model)
    av = peft.PeftModel.from_pretrained(base, shipped / "av").merge_and_unload()
    truncated = transformers.AutoModel.from_pretrained(model, num_hidden_layers=2)
    truncated.norm = torch.nn.Identity()
    ar = peft.PeftModel.from_pretrained(truncated, shipped / "ar").merge_and_unload()
    head = load_file(shipped / "ar" / "head.safetensors")["weight"].float()

    hidden = ar(torch.tensor([[1, 2, 3]])).last_hidden_state[0, -1]
    assert av.config.num_hidden_layers == 3
    assert np.isfinite((head @ hidden).detach().numpy()).all()
    trained = load_file(shipped / "ar" / "adapter_model.safetensors")
    assert {value.dtype for value in trained.values()} == {torch.float16}
    assert any(value.abs().max() > 0 for name, value in trained.items() if "lora_B" in name)
