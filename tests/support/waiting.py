"""The only waiting loop in the tests."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def pause() -> None:
    """Sleep for a moment."""
    time.sleep(0.05)


def wait_until(
    what: str | Callable[[], str],
    probe: Callable[[], T],
    seconds: float = 20.0,
    *,
    meanwhile: Callable[[], object] = pause,
) -> T:
    """Return the probe's first true value, or fail with ``what`` and the last value after ``seconds``.

    ``meanwhile`` runs between probes, for example a step of the loop under test.
    """
    deadline = time.monotonic() + seconds
    while not (value := probe()):
        assert time.monotonic() < deadline, (
            f"not within {seconds} s: {what if isinstance(what, str) else what()}; last: {value!r}"
        )
        meanwhile()
    return value
