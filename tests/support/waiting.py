"""The one loop that waits for something to come true."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def pause() -> None:
    """Leave the processor to whoever is waited for."""
    time.sleep(0.05)


def wait_until(
    what: str | Callable[[], str],
    probe: Callable[[], T],
    seconds: float = 20.0,
    *,
    meanwhile: Callable[[], object] = pause,
) -> T:
    """Return the first true value of the probe, or fail with its last one and what was waited for.

    ``meanwhile`` runs between two looks: a step of the loop under test, say.
    """
    deadline = time.monotonic() + seconds
    while not (value := probe()):
        assert time.monotonic() < deadline, (
            f"not within {seconds} s: {what if isinstance(what, str) else what()}; last: {value!r}"
        )
        meanwhile()
    return value
