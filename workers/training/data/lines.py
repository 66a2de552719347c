"""A file of JSON lines that grows in portions and survives being killed between any two of them."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def read_lines(path: Path) -> list[Any]:
    """Return every complete line's value; none when there is no file."""
    if not path.exists():
        return []
    text = path.read_text()
    # A kill may have cut the last line short.
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def unfinished(path: Path) -> Path:
    """Return where the lines stand until they are complete."""
    return path.with_name(path.name + ".unfinished")


def grow_lines(path: Path, step: Callable[[list[Any]], Iterable[Any] | None]) -> None:
    """Append what ``step`` returns for the lines so far, until it returns None; then name it ``path``.

    Until then the lines stand in ``unfinished(path)``, and a new call goes on from them.
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
