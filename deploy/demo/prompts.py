"""Load the demo's prompts from prompts.yaml."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

PROMPTS_FILE = Path(__file__).resolve().parent / "prompts.yaml"


class Prompt(NamedTuple):
    """One chat prompt."""

    topic: str
    text: str


def load_prompts(path: Path = PROMPTS_FILE) -> list[Prompt]:
    """Return the prompts in file order; ValueError names an entry with other keys than topic and text."""
    prompts = []
    for number, entry in enumerate(yaml.safe_load(path.read_text()), start=1):
        if not isinstance(entry, dict) or set(entry) != {"topic", "text"}:
            raise ValueError(f"{path.name}, entry {number}: needs exactly 'topic' and 'text'")
        prompts.append(Prompt(topic=str(entry["topic"]), text=str(entry["text"])))
    return prompts


def by_turns(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Return the prompts in round-robin order of topics, so that a short run covers every topic."""
    topics: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        topics.setdefault(prompt.topic, []).append(prompt)
    rounds = itertools.zip_longest(*topics.values())
    return [prompt for turn in rounds for prompt in turn if prompt is not None]
