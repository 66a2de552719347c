"""Whether a running decoder can still be trusted: a rolling window of its readings, judged.

Pure: no clock, no metric, no store. Only readings of the random baseline belong in here: what the screen
picked is strange by choice.
"""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from workers.nla.decoder import PositionClass

Name = Literal["unique_texts", "commonest_text", "well_formed", "beyond_token", "position_shift"]
NAMES: Final[tuple[Name, ...]] = (
    "unique_texts",
    "commonest_text",
    "well_formed",
    "beyond_token",
    "position_shift",
)

WINDOW: Final = 200
FEWEST: Final = 50
"""Below this number of readings nothing is called bad."""

UNIQUE_BELOW: Final = 0.5
COMMONEST_ABOVE: Final = 0.3
WELL_FORMED_BELOW: Final = 0.8
DROP_AT_LEAST: Final = 0.1
DROP_SHARE: Final = 0.5


class ReadingFacts(NamedTuple):
    """What the checks need of one reading."""

    text: int
    """A hash of the text: equal for equal texts, and no copy of what it says."""
    is_well_formed: bool
    fve_beyond_token: float | None
    position_class: PositionClass | str


class Check(NamedTuple):
    """One figure of the window."""

    name: Name
    value: float
    is_bad: bool


def expected_beyond_token(card: Mapping[str, Any]) -> float | None:
    """Return the mean `fve_beyond_token` of the decoder's calibration; None where it was not measured."""
    calibration = card.get("calibration")
    figure = calibration.get("fve_beyond_token") if isinstance(calibration, Mapping) else None
    value = figure.get("value") if isinstance(figure, Mapping) else figure
    return float(value) if isinstance(value, int | float) else None


def check(
    window: Sequence[ReadingFacts], *, expected: float | None, mix: Mapping[str, float] | None
) -> list[Check]:
    """Measure the window; ``expected`` is the calibration's, ``mix`` the shares of position classes before.

    1. `unique_texts`: different texts of all. A collapsed AV says the same whatever it is given.
    2. `commonest_text`: share of the most frequent text. High when the vector no longer reaches the AV.
    3. `well_formed`: share of readings in the decoder's format.
    4. `beyond_token`: mean of `fve_beyond_token`, bad when it fell far below the calibration's.
    5. `position_shift`: how far the mix of positions moved, 0 to 1. Never bad: it tells of the traffic, and
       whether a fall of the others may come from it.
    """
    if not window:
        return []
    total, is_enough = len(window), len(window) >= FEWEST
    texts = Counter(seen.text for seen in window)
    unique, commonest = len(texts) / total, max(texts.values()) / total
    well_formed = sum(seen.is_well_formed for seen in window) / total
    checks = [
        Check("unique_texts", unique, is_enough and unique < UNIQUE_BELOW),
        Check("commonest_text", commonest, is_enough and commonest > COMMONEST_ABOVE),
        Check("well_formed", well_formed, is_enough and well_formed < WELL_FORMED_BELOW),
    ]
    beyond = [seen.fve_beyond_token for seen in window if seen.fve_beyond_token is not None]
    if beyond:
        mean = sum(beyond) / len(beyond)
        is_low = expected is not None and mean < lowest_beyond_token(expected)
        checks.append(Check("beyond_token", mean, is_low and len(beyond) >= FEWEST))
    if mix is not None:
        checks.append(Check("position_shift", _distance(mix, position_mix(window)), is_bad=False))
    return checks


def lowest_beyond_token(expected: float) -> float:
    """Return the mean below which the decoder has lost too much of what its calibration measured."""
    return expected - max(DROP_AT_LEAST, DROP_SHARE * expected)


def position_mix(window: Sequence[ReadingFacts]) -> dict[str, float]:
    """Return the share of each position class."""
    return {name: n / len(window) for name, n in Counter(seen.position_class for seen in window).items()}


def _distance(before: Mapping[str, float], now: Mapping[str, float]) -> float:
    return sum(abs(before.get(name, 0) - now.get(name, 0)) for name in before.keys() | now.keys()) / 2


class DecoderHealth:
    """The last readings of one decoder; it recovers by itself once they are good again."""

    def __init__(self, expected: float | None) -> None:
        """Start empty; ``expected`` is as from `expected_beyond_token`."""
        self._expected = expected
        self._window: deque[ReadingFacts] = deque(maxlen=WINDOW)
        self._mix: dict[str, float] | None = None  # of the first full window
        self.checks: list[Check] = []

    @property
    def failed(self) -> tuple[Name, ...]:
        """The checks that are bad now; while there are any, the decoder is not to be trusted."""
        return tuple(found.name for found in self.checks if found.is_bad)

    def add(self, seen: Sequence[ReadingFacts]) -> None:
        """Take in new readings and check the window again."""
        self._window.extend(seen)
        if self._mix is None and len(self._window) == WINDOW:
            self._mix = position_mix(self._window)
        self.checks = check(self._window, expected=self._expected, mix=self._mix)
