"""The life of one run, step by step; a step whose result exists is skipped.

prompts -> chats -> samples -> AR -> AV -> export -> evaluation and card
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from workers.training import collect, loop, prompts, statistics, tasks
from workers.training.config import RunConfig
from workers.training.dataset import Samples
from workers.training.reconstructor import Reconstructor
from workers.training.targets import Target, TargetWriter
from workers.training.verbalizer import Verbalizer

CALIBRATION = "calibration_vectors.safetensors"


class Split:
    """One split's samples with their explanations."""

    def __init__(self, path: Path, writer: TargetWriter) -> None:
        """Load the samples and write their targets."""
        self.samples = Samples.load(path)
        self.targets: list[Target] = tasks.write_targets(writer, self.samples)
        self.texts = [target.text for target in self.targets]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Where a run reads and writes, and how far it may go."""

    config: RunConfig
    config_file: Path
    home: Path
    """SUBTEXT_HOME."""
    log: Callable[[str], None]
    finish: bool = False
    """Take each training's last checkpoint as its end."""

    @property
    def folder(self) -> Path:
        """The run's own directory."""
        return self.home / "runs" / self.config.name

    @property
    def model(self) -> str:
        """The audited model's directory."""
        return str(self.home / self.config.model)

    def tokenizer(self) -> Any:
        """Load the model's tokenizer."""
        import transformers

        return transformers.AutoTokenizer.from_pretrained(self.model)

    def split(self, name: str) -> Split:
        """Load one split."""
        return Split(self.folder / f"{name}.safetensors", TargetWriter(self.tokenizer()))

    def baseline(self) -> float:
        """FVE baseline of the calibration split."""
        return statistics.fve_baseline(Samples.load(self.folder / "calibration.safetensors").vectors)


def collect_data(run: Run) -> None:
    """Prompts, chats and samples."""
    run.folder.mkdir(parents=True, exist_ok=True)
    prompts_file = run.folder / "prompts.jsonl"
    if not prompts_file.exists():
        run.log("choosing prompts")
        chosen = prompts.gather_prompts(
            run.config.prompts,
            wheels=run.home / run.config.prompts.wheels,
            beside=run.config_file.parent,
            seed=run.config.seed,
        )
        prompts_file.write_text("".join(json.dumps(text) + "\n" for text in chosen))
    chats_file = run.folder / "chats.jsonl"
    if not chats_file.exists():
        texts = [json.loads(line) for line in prompts_file.read_text().splitlines()]
        run.log(f"letting the model answer {len(texts)} prompts")
        collect.collect_chats(run.config, run.tokenizer(), texts, chats_file, model=run.model)
    if not all((run.folder / f"{split}.safetensors").exists() for split in collect.SPLITS):
        collect.collect_samples(run.config, chats_file, run.folder, model=run.model, log=run.log)
    if not (run.folder / CALIBRATION).exists():
        _export_calibration(run)


def train_reconstructor(run: Run) -> Reconstructor:
    """Train the AR on true explanations and return it."""
    ar = Reconstructor(run.model, run.tokenizer(), run.config.ar, layer=run.config.layer)
    train, held_out = run.split("train"), run.split("held_out")
    task = tasks.reconstructor_task(
        ar,
        train.texts,
        train.samples.vectors,
        held_out_texts=held_out.texts,
        held_out=held_out.samples.vectors,
        baseline=run.baseline(),
    )
    loop.train(
        task,
        run.config.ar,
        run.folder / "ar.safetensors",
        seed=run.config.seed,
        log=run.log,
        finish=run.finish,
    )
    return ar


def train_verbalizer(run: Run) -> Verbalizer:
    """Train the AV on true explanations and return it."""
    tokenizer = run.tokenizer()
    writer = TargetWriter(tokenizer)
    av = Verbalizer(run.model, tokenizer, run.config.av, run.config.injection)
    train, held_out = run.split("train"), run.split("held_out")
    task = tasks.verbalizer_task(
        av,
        [writer.wrap(target) for target in train.targets],
        train.samples,
        held_out_targets=[writer.wrap(target) for target in held_out.targets],
        held_out=held_out.samples,
    )
    loop.train(
        task,
        run.config.av,
        run.folder / "av.safetensors",
        seed=run.config.seed + 1,
        log=run.log,
        finish=run.finish,
    )
    return av


def _export_calibration(run: Run) -> None:
    from safetensors.numpy import save_file

    samples = Samples.load(run.folder / "calibration.safetensors")
    save_file(
        {
            "vectors": np.ascontiguousarray(samples.vectors),
            "positions": np.ascontiguousarray(samples.positions),
            "documents": np.ascontiguousarray(samples.documents),
        },
        run.folder / CALIBRATION,
    )
