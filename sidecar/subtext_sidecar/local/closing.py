"""What is closed at the end of its `with` block."""

from abc import ABC, abstractmethod
from typing import Self


class Closing(ABC):
    """Holds something open until it is closed."""

    @abstractmethod
    def close(self) -> None:
        """Let go of it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
