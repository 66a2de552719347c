"""Asking a store at most once in a while, however many ask us."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Remembered(Generic[T]):
    """The answer of ``find``, for ``seconds`` after it was found.

    Whoever asks meanwhile gets the last one; whoever asks while it is looked for waits for that look.
    """

    def __init__(
        self, find: Callable[[], T], seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``find`` does not raise; it is called by one thread at a time."""
        self._find = find
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._last: tuple[float, T] | None = None

    def get(self) -> T:
        """Return the value, looking for it when it is too old."""
        with self._lock:
            if self._last is None or self._clock() - self._last[0] >= self._seconds:
                found = self._find()
                self._last = (self._clock(), found)
            return self._last[1]
