"""A folder that several test processes fill, one at a time."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep every other process out that asks for the folder too; a process that dies lets go."""
    # Its own place: what is reached over a link is one folder too.
    folder = folder.resolve()
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
