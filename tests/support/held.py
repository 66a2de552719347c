"""A lock for a folder that several test processes fill."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on the folder; the lock ends with the process."""
    # Symlinks to one folder must share one lock.
    folder = folder.resolve()
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
