"""A timing wheel whose clock counts tokens: it tells when a request can reach what is wanted of it.

No request advances behind its prompt by more tokens in a step than one and the most drafts of any, so
the sum of those over all steps is an upper bound for everybody. What is filed under a later time than
that needs no look, and a step in which nothing is due need not be read at all.
"""

from typing import Generic, Protocol, TypeVar


class WheelItem(Protocol):
    """What a wheel holds."""

    due: int  # written by the wheel


Item = TypeVar("Item", bound=WheelItem)


class Wheel(Generic[Item]):
    """Items by the time at which they are due."""

    def __init__(self) -> None:
        self.now = 0  # tokens
        self._filed: dict[int, list[Item]] = {}

    def put(self, item: Item, due: int) -> None:
        """File an item; a time that has passed counts as now."""
        item.due = due if due > self.now else self.now  # noqa: FURB136  # cheaper than max
        others = self._filed.get(item.due)
        if others is None:
            self._filed[item.due] = [item]
        else:
            others.append(item)

    def remove(self, item: Item) -> None:
        """Take back an item that is filed."""
        others = self._filed[item.due]
        others.remove(item)
        if not others:
            del self._filed[item.due]

    def turn(self, tokens: int) -> list[Item]:
        """Let the clock run and return what became due, no longer filed."""
        self.now += tokens
        if tokens == 1:
            return self._filed.pop(self.now - 1, [])
        times = [due for due in self._filed if due < self.now]
        return [item for due in times for item in self._filed.pop(due)]
