"""A toy model goes from nothing to a shipped pair with its card, through the command itself."""

import json
import multiprocessing
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.training import GEMMA3, Family, in_every_family, write_run
from workers.nla import fidelity
from workers.nla.checkpoint.assemble import assemble
from workers.nla.checkpoint.meta import load_meta
from workers.nla.checkpoint.pair import load_pair
from workers.nla.engine.prompt import InjectionPrompt, ReconstructionPrompt
from workers.nla.engine.reconstructor import Reconstructor
from workers.nla.positions import template_ids
from workers.training.cli import train
from workers.training.config import load_config
from workers.training.data.targets import ReadingWriter
from workers.training.fit.tasks import spread
from workers.training.steps import Run

KILLS = 5
_PROCESSES = multiprocessing.get_context("forkserver")


@pytest.fixture(scope="module")
def run_file(
    toy_home: Path, toy_family: Family, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """The file of a run that is through; its pair stands in `shipped` beside it."""
    path = write_run(tmp_path_factory.mktemp("run"), toy_family)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUBTEXT_HOME", str(toy_home))
        assert train(["--config", str(path)]) == 0
        yield path


@pytest.fixture(scope="module")
def shipped(run_file: Path) -> Path:
    return run_file.parent / "shipped"


@pytest.fixture(scope="module")
def assembled(shipped: Path, toy_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return assemble(shipped, toy_model, tmp_path_factory.mktemp("decoder") / "toy")


@pytest.fixture
def other_home(toy_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A SUBTEXT_HOME without runs."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("models", "wheels"):
        (home / name).symlink_to(toy_home / name)
    monkeypatch.setenv("SUBTEXT_HOME", str(home))
    return home


@in_every_family
def test_a_run_goes_from_prompts_to_a_card(shipped: Path) -> None:
    card = json.loads((shipped / "card.json").read_text())

    figures = card["figures"]
    assert figures["round_trip"]["best_beyond_token"]["n"] == 12
    assert len(figures["reconstructor"]["true_text_fve"]["ci95"]) == 2
    assert {"area_right_sets", "area_right_real"} <= set(figures["themes"])
    assert set(card["training"]) == {"AR", "AV", "AR on readings", "AV on winners"}
    assert card["examples"]
    assert "| best of 2 readings |" in (shipped / "README.md").read_text()


@in_every_family
def test_the_card_stands_alone_where_the_weights_must_not_be(shipped: Path, toy_family: Family) -> None:
    cards, is_alone = shipped.parent / "cards", toy_family is GEMMA3

    found = {path.name: path.read_text() for path in cards.glob("**/*")}
    text = (shipped / "README.md").read_text()
    expected = {name: (shipped / name).read_text() for name in ("card.json", "README.md")}
    assert found == (expected if is_alone else {})
    assert ("Only the card stands here" in text) is is_alone
    assert ("`calibration.json` holds" in text) is not is_alone


@in_every_family
def test_the_worker_knows_the_chat_template_of_the_run(assembled: Path, toy_family: Family) -> None:
    import transformers

    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(assembled / "av")

    turn = tokenizer.encode(toy_family.prompting["ar"].partition("{")[0], add_special_tokens=False)
    assert tokenizer.chat_template == toy_family.template
    assert template_ids(tokenizer).words >= set(turn[-2:])


def test_a_second_call_changes_no_weight_and_no_figure(run_file: Path, shipped: Path) -> None:
    names = ("av/adapter_model.safetensors", "av/projector.safetensors", "ar/head.safetensors", "card.json")
    before = [(shipped / name).read_bytes() for name in names]

    assert train(["--config", str(run_file)]) == 0

    assert [(shipped / name).read_bytes() for name in names] == before


def test_a_run_in_several_calls_gives_the_figures_of_one_call(
    other_home: Path, shipped: Path, tmp_path: Path
) -> None:
    import torch

    assert not (other_home / "runs").exists()
    path = write_run(tmp_path)

    for step in ("data", "labels", "ar", "av", "readings"):
        torch.manual_seed(len(step))
        assert train(["--config", str(path), "--until", step]) == 0
    assert train(["--config", str(path)]) == 0

    assert _values(tmp_path / "shipped") == _values(shipped)


def test_a_run_killed_five_times_ends_with_the_figures_of_an_undisturbed_one(
    other_home: Path, shipped: Path, tmp_path: Path
) -> None:
    path = write_run(tmp_path)
    whole = _seconds_of_a_run(path)
    shutil.rmtree(other_home / "runs")
    shutil.rmtree(tmp_path / "shipped")
    moments = random.Random(0)  # noqa: S311 - a choice of moments

    ends = [_run_for(moments.uniform(0.1, 0.5) * whole, path) for _ in range(KILLS)]
    assert -signal.SIGKILL in ends
    assert train(["--config", str(path)]) == 0

    undisturbed, resumed = (_values(folder) for folder in (shipped, tmp_path / "shipped"))
    assert resumed == pytest.approx(undisturbed, rel=0.01, abs=1e-3)


def _seconds_of_a_run(path: Path) -> float:
    # The libraries are loaded once, not by every process that is to be killed.
    _PROCESSES.set_forkserver_preload(["workers.training.steps", "peft", "transformers"])
    _finish(_PROCESSES.Process(target=int))
    started = time.monotonic()
    assert _finish(_PROCESSES.Process(target=train, args=(["--config", str(path)],))) == 0
    return time.monotonic() - started


def _run_for(seconds: float, path: Path) -> int | None:
    return _finish(_PROCESSES.Process(target=train, args=(["--config", str(path)],)), seconds)


def _finish(process: Any, seconds: float | None = None) -> int | None:
    process.start()
    process.join(seconds)
    process.kill()
    process.join()
    code: int | None = process.exitcode
    return code


def _values(folder: Path) -> dict[str, float]:
    figures = json.loads((folder / "card.json").read_text())["figures"]
    parts = ("themes", "reconstructor", "verbalizer", "round_trip")
    return {f"{part}.{name}": figure["value"] for part in parts for name, figure in figures[part].items()}


@in_every_family
def test_the_shipped_adapters_rebuild_both_halves_with_peft_alone(shipped: Path, toy_model: Path) -> None:
    import peft
    import torch
    import transformers
    from safetensors.torch import load_file

    base = transformers.AutoModelForCausalLM.from_pretrained(toy_model)
    av = peft.PeftModel.from_pretrained(base, shipped / "av").merge_and_unload()
    truncated = transformers.AutoModel.from_pretrained(toy_model, num_hidden_layers=2)
    truncated.norm = torch.nn.Identity()
    ar = peft.PeftModel.from_pretrained(truncated, shipped / "ar").merge_and_unload()
    head = load_file(shipped / "ar" / "head.safetensors")["weight"].float()

    hidden = ar(torch.tensor([[1, 2, 3]])).last_hidden_state[0, -1]
    assert av.config.num_hidden_layers == 3
    assert np.isfinite((head @ hidden).detach().numpy()).all()
    trained = load_file(shipped / "ar" / "adapter_model.safetensors")
    assert {value.dtype for value in trained.values()} == {torch.float16}
    assert any(value.abs().max() > 0 for name, value in trained.items() if "lora_B" in name)


@in_every_family
def test_the_worker_loads_what_a_run_ships(assembled: Path) -> None:
    pair = load_pair(assembled / "av", assembled / "ar")

    assert pair.layer == 1
    assert pair.av.meta.base_checkpoint == "toy"


@in_every_family
def test_the_workers_prompts_are_those_of_the_training(
    assembled: Path, run_file: Path, toy_tokenizer: Any
) -> None:
    writer = ReadingWriter(toy_tokenizer, load_config(run_file).prompting)
    sentence, token = "A request about sums (arithmetic), touching on fraud.", 300
    text = writer.true_text(sentence, [301, 302, 303, token], 304)

    injected = InjectionPrompt(load_meta(assembled / "av", "av"), toy_tokenizer).build(token, sentence)
    read = ReconstructionPrompt(load_meta(assembled / "ar", "ar"), toy_tokenizer).encode(text, token)

    behind = injected.position + injected.rows
    assert list(injected.ids[: injected.position]) == writer.before
    assert list(injected.ids[behind:]) == writer.prompt(token, sentence)
    assert read == writer.ar_ids(text, token)


@in_every_family
def test_the_worker_rebuilds_as_well_as_the_card_says(
    assembled: Path, run_file: Path, shipped: Path, toy_home: Path, toy_tokenizer: Any
) -> None:
    run = Run(config=load_config(run_file), config_file=run_file, home=toy_home, log=lambda _: None)
    known = run.material("held_out")
    known = known.take(spread(len(known.sentences), run.config.evaluation.round_trip_vectors))
    rows = zip(known.sentences, known.context.tolist(), known.next_tokens.tolist(), strict=True)
    texts = [run.writer.true_text(*row) for row in rows]

    reconstructor = Reconstructor(assembled / "ar", load_meta(assembled / "ar", "ar"), toy_tokenizer)
    rebuilt = reconstructor.rebuild(texts, known.context[:, -1].tolist())

    card = json.loads((shipped / "card.json").read_text())
    explained = fidelity.fve(known.vectors, rebuilt, baseline=run.baseline).mean()
    assert explained == pytest.approx(card["figures"]["reconstructor"]["true_text_fve"]["value"], abs=5e-3)
