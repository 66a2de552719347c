"""The life of one run, step by step; a step whose result exists is skipped.

prompts -> chats -> samples -> AR -> AV -> export -> evaluation and card
"""

import random
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from workers.judge.embedder import MiniLmEmbedder
from workers.nla import fidelity
from workers.nla.verbalizer import Explanation
from workers.training import (
    activations,
    card,
    chats,
    collect,
    evaluation,
    lines,
    loop,
    prompts,
    readings,
    tasks,
)
from workers.training.checkpoint import load_weights, read_position
from workers.training.config import RunConfig
from workers.training.dataset import Samples
from workers.training.export import export_pair
from workers.training.labels import Labeller, Taxonomy, load_taxonomy
from workers.training.reconstructor import Reconstructor
from workers.training.targets import Target, TargetWriter
from workers.training.verbalizer import Verbalizer

CALIBRATION = "calibration_vectors.safetensors"


class Split:
    """One split's samples with their explanations."""

    def __init__(self, path: Path, writer: TargetWriter, taxonomy: Taxonomy) -> None:
        """Load the samples and write their targets."""
        self.samples = Samples.load(path)
        self.targets: list[Target] = tasks.write_targets(writer, self.samples, taxonomy)
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

    def order_seed(self, training: str) -> int:
        """Return what orders a training's examples: another order in every run and every half."""
        return zlib.crc32(f"{self.config.seed}:{self.config.name}:{training}".encode())

    def writer(self) -> TargetWriter:
        """Return what writes this run's explanations."""
        return TargetWriter(self.tokenizer(), self.config.targets)

    def taxonomy(self) -> Taxonomy:
        """Load the labels that explanations may name."""
        return load_taxonomy(self.config_file.parent / self.config.targets.taxonomy)

    def start(self, half: str, parameters: dict[str, Any]) -> None:
        """Begin with the weights of the earlier run, if there is one."""
        if self.config.start_from is not None:
            load_weights(self.home / "runs" / self.config.start_from / f"{half}.safetensors", parameters)

    def split(self, name: str) -> Split:
        """Load one split."""
        return Split(self.folder / f"{name}.safetensors", self.writer(), self.taxonomy())

    def samples(self, name: str) -> Samples:
        """Load one split's samples alone."""
        return Samples.load(self.folder / f"{name}.safetensors")

    def readings_file(self, name: str) -> Path:
        """Return where the readings of one set of vectors are kept."""
        return self.folder / f"readings_{name}.jsonl"

    def readings(self, name: str) -> list[Explanation]:
        """Load the readings of one set of vectors; none before they were made."""
        path = self.readings_file(name)
        return readings.load_readings(path) if path.exists() else []

    def baseline(self) -> float:
        """FVE baseline of the calibration split."""
        return fidelity.fve_baseline(self.samples("calibration").vectors)


def collect_data(run: Run) -> None:
    """Prompts, chats and samples."""
    run.folder.mkdir(parents=True, exist_ok=True)
    sampled_file, prompts_file, chats_file = (
        run.folder / f"{name}.jsonl" for name in ("sampled", "prompts", "chats")
    )
    if not chats_file.exists():
        # A resumed run must not draw again what it has drawn.
        drawn = sum(len(lines.read_lines(lines.unfinished(path))) for path in (sampled_file, chats_file))
        writer = chats.load_writer(run.config.engine, run.model, seed=run.config.seed + drawn)
        if not prompts_file.exists():
            run.log("choosing prompts")
            chosen = _choose_prompts(run, writer, sampled_file)
            lines.grow_lines(prompts_file, lambda written: None if written else chosen)
        texts = lines.read_lines(prompts_file)
        collect.collect_chats(
            run.config.chats, writer, run.tokenizer(), texts, path=chats_file, log=run.log
        )
        # The engine's memory must be gone before training starts.
        del writer
    if not all((run.folder / f"{split}.safetensors").exists() for split in collect.SPLITS):
        run.log("loading the model and the labels")
        collect.collect_samples(
            run.config,
            chats_file,
            run.folder,
            reader=activations.ActivationReader(run.model, layer=run.config.layer),
            labeller=Labeller(run.taxonomy(), MiniLmEmbedder()),
            tokenizer=run.tokenizer(),
            log=run.log,
        )
    if not (run.folder / CALIBRATION).exists():
        _export_calibration(run)


def _choose_prompts(run: Run, writer: chats.Writer, sampled_file: Path) -> list[str]:
    settings = run.config.prompts
    chosen = prompts.gather_prompts(
        settings, wheels=run.home / settings.wheels, beside=run.config_file.parent, seed=run.config.seed
    )
    if settings.sampled is not None:
        chosen += collect.sample_prompts(
            settings.sampled,
            writer,
            run.tokenizer(),
            max_bytes=settings.max_bytes,
            path=sampled_file,
            log=run.log,
        )
    chosen = prompts.usable(chosen, max_bytes=settings.max_bytes)
    random.Random(run.config.seed).shuffle(chosen)  # noqa: S311 - a choice of data, not a secret
    return chosen


def train_reconstructor(run: Run) -> Reconstructor:
    """Train the AR on true explanations and return it."""
    ar = Reconstructor(run.model, run.tokenizer(), run.config.ar, layer=run.config.layer)
    run.start("ar", ar.parameters())
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
        seed=run.order_seed("ar"),
        log=run.log,
        finish=run.finish,
    )
    return ar


def train_verbalizer(run: Run) -> Verbalizer:
    """Train the AV on true explanations and return it."""
    tokenizer = run.tokenizer()
    writer = run.writer()
    av = Verbalizer(run.model, tokenizer, run.config.av, run.config.injection)
    run.start("av", av.parameters())
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
        seed=run.order_seed("av"),
        log=run.log,
        finish=run.finish,
    )
    return av


def read_vectors(run: Run, ar: Reconstructor, av: Verbalizer) -> None:
    """Let the AV write freely about training vectors, held-out vectors and noise."""
    train, held_out = run.samples("train"), run.samples("held_out")
    vectors = {
        "train": train.vectors[readings.train_rows(run.config, train)],
        "held_out": held_out.vectors[readings.held_out_rows(run.config, held_out)],
        "noise": readings.noise(run.config, train.vectors.shape[1]),
    }
    counts = {name: len(run.readings(name)) for name in vectors}
    if all(counts[name] == len(rows) for name, rows in vectors.items()):
        return
    with ExitStack() as stack:
        reader = readings.hugging_face_reader(av)
        if run.config.engine == "vllm":
            draft = run.folder / "draft"
            export_pair(run.config, av, ar, run.tokenizer(), draft)
            reader = stack.enter_context(
                readings.engine_reader(draft, Path(run.model), run.folder / "assembled", run.tokenizer())
            )
        for name, rows in vectors.items():
            readings.keep_readings(run.readings_file(name), rows, reader, log=run.log)


def adapt_reconstructor(run: Run, ar: Reconstructor) -> None:
    """Train the AR on readings of training vectors, so that it weighs what the AV gets wrong."""
    train, held_out = run.split("train"), run.samples("held_out")
    rows = readings.train_rows(run.config, train.samples)
    others = np.setdiff1d(np.arange(len(train.samples)), rows)
    true_rows = others[tasks.spread(len(others), round(len(rows) * run.config.adaptation.true_share))]
    task = tasks.reconstructor_task(
        ar,
        [*(said.text for said in run.readings("train")), *(train.texts[row] for row in true_rows)],
        train.samples.vectors[np.concatenate([rows, true_rows])],
        held_out_texts=[said.text for said in run.readings("held_out")],
        held_out=held_out.vectors[readings.held_out_rows(run.config, held_out)],
        baseline=run.baseline(),
        title="AR on readings",
    )
    loop.train(
        task,
        run.config.adaptation,
        run.folder / "ar_adapted.safetensors",
        seed=run.order_seed("ar_adapted"),
        log=run.log,
        finish=run.finish,
    )


def export(run: Run, ar: Reconstructor, av: Verbalizer) -> Path:
    """Ship adapters and head in half precision; the weights in memory become the shipped ones."""
    target = Path(run.config.export)
    for parameters in (ar.parameters(), av.parameters()):
        for value in parameters.values():
            # What is measured next must be what is shipped.
            value.data = value.data.half().float()
    export_pair(run.config, av, ar, run.tokenizer(), target)
    return target


def evaluate(run: Run, ar: Reconstructor, av: Verbalizer, target: Path) -> None:
    """Measure the pair on held-out chats and write its card."""
    train, held_out = run.samples("train"), run.split("held_out")
    known = evaluation.HeldOut(
        held_out.samples, held_out.targets, run.baseline(), run.config.evaluation.bootstrap_rounds
    )
    writer = run.writer()
    run.log("measuring the reconstructor")
    figures: dict[str, Any] = {"fve_baseline": round(known.baseline, 4)}
    figures["reconstructor"] = evaluation.measure_reconstructor(ar, known, train)
    run.log("measuring the verbalizer")
    figures["verbalizer"] = evaluation.measure_verbalizer(
        av,
        known,
        [writer.wrap(item) for item in held_out.targets],
        limit=run.config.evaluation.teacher_forced_vectors,
    )
    rows = readings.held_out_rows(run.config, held_out.samples)
    figures["round_trip"] = evaluation.measure_round_trip(
        ar,
        known,
        readings.Readings(rows, run.readings("held_out")),
        evaluation.Noise(readings.noise(run.config, train.vectors.shape[1]), run.readings("noise")),
    )
    counts = {"chats": len((run.folder / "chats.jsonl").read_text().splitlines())}
    counts |= {name: len(run.samples(name)) for name in collect.SPLITS}
    card.write_card(card.build_card(run.config, figures, _costs(run), counts), run.config, target)


def _costs(run: Run) -> dict[str, Any]:
    """Return each training's last progress record."""
    names = {"AR": "ar", "AV": "av", "AR on readings": "ar_adapted"}
    positions = {title: read_position(run.folder / f"{name}.safetensors") for title, name in names.items()}
    return {
        title: {"examples": at.seen, "minutes": at.minutes, "history": at.history}
        for title, at in positions.items()
    }


def _export_calibration(run: Run) -> None:
    from safetensors.numpy import save_file

    samples = Samples.load(run.folder / "calibration.safetensors")
    arrays = {"vectors": samples.vectors, "positions": samples.positions, "documents": samples.documents}
    save_file(
        {name: np.ascontiguousarray(array) for name, array in arrays.items()}, run.folder / CALIBRATION
    )
