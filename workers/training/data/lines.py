"""A JSON-lines file that grows in portions, resumable after a kill at any moment."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def read_lines(path: Path) -> list[Any]:
    """Return the value of every complete line; empty without a file."""
    if not path.exists():
        return []
    text = path.read_text()
    # A kill may have truncated the last line.
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def unfinished(path: Path) -> Path:
    """Return the path of the incomplete file."""
    return path.with_name(path.name + ".unfinished")


def grow_lines(path: Path, step: Callable[[list[Any]], Iterable[Any] | None]) -> None:
    """Append the lines that ``step`` returns for the lines so far, until ``step`` returns None.

    The lines are written to ``unfinished(path)``, which is renamed to ``path`` at the end. A new call
    resumes from the unfinished file.
    """
    if path.exists():
        return
    growing = unfinished(path)
    lines = read_lines(growing)
    with growing.open("w") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
        file.flush()
        while (more := step(lines)) is not None:
            new = list(more)
            file.writelines(json.dumps(line) + "\n" for line in new)
            file.flush()
            lines += new
    growing.replace(path)
