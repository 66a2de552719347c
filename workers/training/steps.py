"""The steps of a run; a step whose result exists is skipped.

prompts -> chats -> samples -> labels -> AR -> AV -> readings -> AR on readings -> AV on winners -> card
"""

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from workers.judge.embedder import MiniLmEmbedder
from workers.nla import fidelity
from workers.nla.checkpoint.labels import LabelHead, load_labels
from workers.nla.checkpoint.projector import centre
from workers.nla.claims import first_sentence
from workers.training.config import RunConfig
from workers.training.data import activations, chats, collect, labelling, lines, prompts
from workers.training.data.dataset import Samples
from workers.training.data.labels import Labeller, Taxonomy, load_taxonomy
from workers.training.data.material import Material
from workers.training.data.targets import ReadingWriter
from workers.training.export import export_pair
from workers.training.fit import labels as label_fit
from workers.training.fit import loop, tasks
from workers.training.fit import projection as projection_fit
from workers.training.fit.checkpoint import read_position
from workers.training.fit.reconstructor import Reconstructor, refit_head
from workers.training.fit.verbalizer import Verbalizer
from workers.training.measure import card, evaluation, readings
from workers.training.measure.readings import Candidates

CALIBRATION, TOKENS = "calibration_vectors.safetensors", "token_vectors.safetensors"
"""Files for the options --vectors and --token-vectors of `subtext calibrate`."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run: its configuration, its files, and values computed from them."""

    config: RunConfig
    config_file: Path
    home: Path
    """SUBTEXT_HOME."""
    log: Callable[[str], None]
    finish: bool = False
    """End each training at its last checkpoint."""

    @property
    def folder(self) -> Path:
        """The run's own directory."""
        return self.home / "runs" / (self.config.folder or self.config.name)

    @property
    def model(self) -> str:
        """The audited model's directory."""
        return str(self.home / self.config.model)

    @cached_property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        import transformers

        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(self.model)
        if (template := self.config.chats.template) is not None:
            tokenizer.chat_template = (self.config_file.parent / template).read_text()
        return tokenizer

    @cached_property
    def writer(self) -> ReadingWriter:
        """Writer of this run's target readings."""
        return ReadingWriter(self.tokenizer, self.config.prompting)

    @cached_property
    def taxonomy(self) -> Taxonomy:
        """The labels that readings may name."""
        return load_taxonomy(self.config_file.parent / self.config.targets.taxonomy)

    @cached_property
    def frame(self) -> tuple[NDArray[np.float32], float]:
        """Mean direction and scale of the training vectors."""
        return projection_fit.fit_frame(self.samples("train"))

    @cached_property
    def baseline(self) -> float:
        """FVE baseline of the calibration split."""
        return fidelity.fve_baseline(self.samples("calibration").vectors)

    def order_seed(self, training: str) -> int:
        """Return the seed of a training's order of examples, different for every run and training."""
        return zlib.crc32(f"{self.config.seed}:{self.config.name}:{training}".encode())

    def seed_weights(self, half: str) -> None:
        """Seed a half's initial adapters, so that they do not depend on earlier random draws."""
        import torch

        torch.manual_seed(self.order_seed(f"{half} weights"))

    def samples(self, name: str) -> Samples:
        """Load one split."""
        return Samples.load(self.folder / f"{name}.safetensors")

    def centre(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the input of projector and label head for raw vectors (n, d)."""
        return centre(vectors, *self.frame)

    def material(self, name: str) -> Material:
        """Load one split with its sentences."""
        samples = self.samples(name)
        sentences = json.loads((self.folder / f"sentences_{name}.json").read_text())
        return Material(
            sentences,
            samples.context,
            samples.next_tokens[:, 0],
            samples.vectors,
            self.centre(samples.vectors),
        )

    def labels(self) -> LabelHead:
        """Load the run's label head."""
        return load_labels(self.folder, d_model=len(self.frame[0]))

    def labelling(self) -> labelling.TextLabelling | labelling.StoredLabelling:
        """Return the source of labels: the stored file of a bundle, or else the chats' texts."""
        stored = self.folder / labelling.FILE
        if stored.exists():
            return labelling.StoredLabelling(stored)
        rows = lines.read_lines(self.folder / "chats.jsonl")
        return labelling.TextLabelling(Labeller(self.taxonomy, MiniLmEmbedder()), self.tokenizer, rows)

    def train(self, task: loop.Task, config: Any, name: str) -> None:
        """Train a task from its last checkpoint to its end."""
        loop.train(
            task,
            config,
            self.folder / f"{name}.safetensors",
            seed=self.order_seed(name),
            log=self.log,
            finish=self.finish,
        )


def collect_data(run: Run) -> None:
    """Collect prompts, chats and samples."""
    run.folder.mkdir(parents=True, exist_ok=True)
    chats_file = run.folder / "chats.jsonl"
    if not chats_file.exists():
        run.log("choosing prompts")
        settings = run.config.prompts
        chosen = prompts.gather_prompts(
            settings,
            wheels=run.home / settings.wheels,
            beside=run.config_file.parent,
            seed=run.config.seed,
        )
        writer = chats.load_writer(run.config.engine, run.model)
        collect.collect_chats(
            run.config.chats,
            writer,
            run.tokenizer,
            chosen,
            path=chats_file,
            seed=run.config.seed,
            log=run.log,
        )
        # Free the engine's memory before training.
        del writer
    if not all((run.folder / f"{split}.safetensors").exists() for split in collect.SPLITS):
        run.log("loading the model and the labels")
        collect.collect_samples(
            run.config,
            lines.read_lines(chats_file),
            run.folder,
            reader=activations.ActivationReader(run.model, layer=run.config.layer),
            labelling=run.labelling(),
            log=run.log,
        )
    if not all((run.folder / name).exists() for name in (CALIBRATION, TOKENS)):
        _export_calibration(run)


def fit_labels(run: Run) -> None:
    """Train the label head and write the first sentence of every sample's reading."""
    done = run.folder / "sentences_train.json"
    if done.exists():
        return
    run.log("fitting the label head")
    settings, seed = run.config.labels, run.config.seed
    train, calibration = run.samples("train"), run.samples("calibration")
    targets = label_fit.wanted_of(train, run.taxonomy)
    centred = run.centre(train.vectors)
    head = label_fit.fit(centred, targets, run.taxonomy, settings, seed=seed)
    head = label_fit.set_thresholds(
        head, run.centre(calibration.vectors), label_fit.wanted_of(calibration, run.taxonomy), settings
    )
    label_fit.save_labels(head, run.folder)
    for name in ("held_out", "calibration"):
        _write_sentences(run, name, [head.label(run.centre(run.samples(name).vectors))])
    folds = label_fit.cross_fit(centred, targets, train.documents, run.taxonomy, settings, seed=seed)
    unseen = [fold._replace(names=head.names).label(centred) for fold in folds]
    _write_sentences(run, "train", unseen, train.documents)


def _write_sentences(
    run: Run, name: str, labelled: list[Any], documents: NDArray[np.int64] | None = None
) -> None:
    rows = range(len(labelled[0]))
    fold = np.zeros(len(labelled[0]), np.int64) if documents is None else documents % 2
    sentences = [first_sentence(labelled[fold[row]][row]) for row in rows]
    unfinished = run.folder / f"sentences_{name}.unfinished"
    unfinished.write_text(json.dumps(sentences))
    unfinished.replace(run.folder / f"sentences_{name}.json")


def train_reconstructor(run: Run) -> Reconstructor:
    """Train the AR on true readings and return it."""
    run.seed_weights("ar")
    ar = Reconstructor(run.model, run.config.ar, layer=run.config.layer)
    task = tasks.reconstructor_task(
        ar,
        run.writer,
        run.material("train"),
        run.material("held_out"),
        run.config.ar,
        baseline=run.baseline,
    )
    run.train(task, run.config.ar, "ar")
    return ar


def train_verbalizer(run: Run) -> Verbalizer:
    """Train the AV on true readings and return it."""
    av = load_verbalizer(run)
    task = tasks.verbalizer_task(
        av,
        run.writer,
        run.material("train"),
        run.material("held_out"),
        run.config.av,
        projector_rate=run.config.projection.learning_rate / run.config.av.learning_rate,
    )
    run.train(task, run.config.av, "av")
    return av


def load_verbalizer(run: Run) -> Verbalizer:
    """Return an untrained AV with the closed-form projector."""
    embed = projection_fit.load_embed(run.model)
    projector = projection_fit.fit_projector(run.samples("train"), embed, *run.frame, run.config.projection)
    run.seed_weights("av")
    return Verbalizer(run.model, run.writer, run.config.av, projection_fit.to_linear(projector))


def read_vectors(run: Run, av: Verbalizer) -> list[Candidates]:
    """Return the AV's readings of training vectors."""
    settings, material = run.config.adaptation, run.material("train")
    return readings.keep_readings(
        run.folder / "readings_train.jsonl",
        av,
        run.writer,
        material.take(tasks.spread(len(material.sentences), settings.vectors)),
        candidates=settings.candidates,
        temperature=settings.temperature,
        seed=run.order_seed("readings"),
        log=run.log,
    )


def adapt_reconstructor(run: Run, ar: Reconstructor, candidates: list[Candidates]) -> NDArray[np.float32]:
    """Train the AR on readings and refit its head in closed form.

    Returns the cosine of each vector and the one rebuilt from each reading, (vectors, candidates).
    """
    settings, material = run.config.adaptation, run.material("train")
    rows = tasks.spread(len(material.sentences), settings.vectors)
    chosen = material.take(rows)
    sequences = readings.sequences(run.writer, candidates, chosen.context[:, -1])
    task = tasks.adaptation_task(ar, run.writer, sequences, chosen.vectors, material, settings)
    run.train(task, settings, "ar_adapted")
    others = material.take(np.setdiff1d(np.arange(len(material.sentences)), rows))
    true = others.take(tasks.spread(len(others.sentences), round(len(sequences) * settings.true_share)))
    path = run.folder / "head.safetensors"
    repeated = np.repeat(chosen.vectors, len(sequences) // len(rows), axis=0)
    if not path.exists():
        run.log("refitting the AR's head")
        every = [*sequences, *tasks.true_sequences(run.writer, true)]
        units = fidelity.to_unit(np.concatenate([repeated, true.vectors]))
        features = ar.features(every)
        head = refit_head(ar.head_weight(), features, units, ridge=settings.head_ridge)
        cosines = fidelity.cosine(repeated, (features[: len(sequences)] @ head.T).astype(np.float32))
        save_arrays(path, {"weight": head.astype(np.float32), "cosines": cosines.astype(np.float32)})
    arrays = load_file(path)
    ar.set_head(arrays["weight"])
    return np.asarray(arrays["cosines"].reshape(len(rows), -1), np.float32)


def train_on_winners(
    run: Run, av: Verbalizer, candidates: list[Candidates], cosines: NDArray[np.float32]
) -> None:
    """Train the AV on the readings from which the AR rebuilds best, mixed with true readings."""
    material = run.material("train")
    rows = tasks.spread(len(material.sentences), run.config.adaptation.vectors)
    task = tasks.winners_task(av, run.writer, material, rows, candidates, cosines, run.config.winners)
    run.train(task, run.config.winners, "av_winners")


def export(run: Run, ar: Reconstructor, av: Verbalizer) -> Path:
    """Write the pair in float16, and round the weights in memory to the shipped ones."""
    target = Path(run.config.export)
    for parameters in (ar.parameters(), av.parameters()):
        for value in parameters.values():
            # The evaluation that follows must measure the shipped weights.
            value.data = value.data.half().float()
    projector = projection_fit.from_linear(av.projector, *run.frame)
    export_pair(run.config, av, ar, projector, run.labels(), run.writer, target)
    if run.config.chats.template is not None:
        # The worker derives the tokens of the position class `template` from the chat template.
        for half in ("av", "ar"):
            (target / half / "chat_template.jinja").write_text(run.tokenizer.chat_template)
    return target


def evaluate(run: Run, ar: Reconstructor, av: Verbalizer, target: Path) -> None:
    """Measure the pair on held-out chats and write its card."""
    settings = run.config.evaluation
    samples, train = run.samples("held_out"), run.samples("train")
    known = evaluation.HeldOutSet(
        samples,
        run.material("held_out"),
        run.baseline,
        evaluation.predict_token_means(train.vectors, train.tokens, samples.tokens),
        settings.bootstrap_rounds,
    )
    targets = label_fit.wanted_of(samples, run.taxonomy)
    head = run.labels()
    figures: dict[str, Any] = {"fve_baseline": round(known.baseline, 4)}
    answers = run.labelling().answers(np.unique(samples.documents).tolist())
    figures["themes"] = {
        **evaluation.measure_themes(head, known, targets),
        **evaluation.measure_labeller(known, targets, answers),
    }
    figures["kinds"] = evaluation.measure_kinds(head, known, targets)
    chosen = known.take(tasks.spread(len(samples), settings.round_trip_vectors))
    run.log("measuring the reconstructor")
    figures["reconstructor"] = evaluation.measure_reconstructor(ar, run.writer, chosen)
    run.log("measuring the verbalizer")
    figures["verbalizer"] = evaluation.measure_verbalizer(av, run.writer, chosen)
    written = evaluation.WrittenReadings(
        *(
            readings.keep_readings(
                run.folder / f"readings_{name}.jsonl",
                av,
                run.writer,
                chosen.material,
                candidates=count,
                temperature=temperature,
                seed=run.order_seed(name),
                log=run.log,
            )
            for name, count, temperature in (
                ("held_out_greedy", 1, 0.0),
                ("held_out", settings.candidates, run.config.adaptation.temperature),
            )
        )
    )
    figures["round_trip"] = evaluation.measure_round_trip(ar, run.writer, chosen, written)
    counts = {"chats": len(lines.read_lines(run.folder / "chats.jsonl"))}
    counts |= {name: len(run.samples(name)) for name in collect.SPLITS}
    examples = evaluation.examples(run.writer, chosen, written)
    content = card.build_card(run.config, figures, _costs(run), counts, examples)
    beside = card.load_beside(run.config, run.config_file.parent)
    for folder in (target, *([Path(run.config.card)] if run.config.card else [])):
        folder.mkdir(parents=True, exist_ok=True)
        card.write_card(content, run.config, folder, beside)


def _costs(run: Run) -> dict[str, Any]:
    """Return each training's examples, minutes and history."""
    names = {"AR": "ar", "AV": "av", "AR on readings": "ar_adapted", "AV on winners": "av_winners"}
    positions = {title: read_position(run.folder / f"{name}.safetensors") for title, name in names.items()}
    return {
        title: {"examples": at.seen, "minutes": round(at.minutes, 1), "history": at.history}
        for title, at in positions.items()
    }


def save_arrays(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Write arrays atomically."""
    from safetensors.numpy import save_file

    unfinished = path.with_suffix(".unfinished")
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, unfinished)
    unfinished.replace(path)


def _export_calibration(run: Run) -> None:
    for name, path in (("calibration", CALIBRATION), ("train", TOKENS)):
        _export_vectors(run.samples(name), run.folder / path)


def _export_vectors(samples: Samples, path: Path) -> None:
    """Write a split's vectors in the format of `subtext calibrate`."""
    save_arrays(
        path,
        {
            "vectors": samples.vectors,
            "documents": samples.documents,
            "tokens": samples.tokens,
            "phases": samples.is_answer.astype(np.uint8),
            "positions": samples.positions,
        },
    )
