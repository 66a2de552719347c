"""Classes of retention: how long rows must and may be kept. Pure."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple


class RetentionClass(StrEnum):
    """By which duty rows are kept."""

    AI_ACT = "ai_act"
    HIPAA = "hipaa"
    MINIMAL = "minimal"
    CUSTOM = "custom"


class Bounds(NamedTuple):
    """Days; None: no bound."""

    floor: int | None
    ceiling: int | None


BOUNDS: Final[Mapping[RetentionClass, Bounds]] = {
    # Articles 19(1) and 26(6): at least six months.
    RetentionClass.AI_ACT: Bounds(183, None),
    # 45 CFR 164.316(b)(2): six years, of which two may be leap years.
    RetentionClass.HIPAA: Bounds(2192, None),
    # Regulation (EU) 2016/679, Article 5(1)(e): no longer than is needed.
    RetentionClass.MINIMAL: Bounds(None, 30),
    RetentionClass.CUSTOM: Bounds(None, None),
}
"""By class. Whoever sets a period may narrow them, and never widen."""


class PeriodError(ValueError):
    """A period or bound that the class does not allow; ``field`` and ``code`` are stable."""

    def __init__(self, field: str, code: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.code = code


def bounds_of(class_: RetentionClass, asked: Bounds, period: int | None) -> Bounds:
    """Return the bounds in force for a period in days; None: rows are kept for good.

    Raises PeriodError for a bound that is wider than the class's, and for a period outside of the bounds.
    """
    own = BOUNDS[class_]
    floor = own.floor if asked.floor is None else asked.floor
    ceiling = own.ceiling if asked.ceiling is None else asked.ceiling
    if own.floor is not None and floor is not None and floor < own.floor:
        raise PeriodError(
            "floor_days", "below_class", f"the floor of {class_} is {own.floor} days; give as many or more"
        )
    if own.ceiling is not None and ceiling is not None and ceiling > own.ceiling:
        raise PeriodError(
            "ceiling_days",
            "above_class",
            f"the ceiling of {class_} is {own.ceiling} days; give as many or fewer",
        )
    if floor is not None and ceiling is not None and floor > ceiling:
        raise PeriodError(
            "floor_days", "above_ceiling", f"the floor of {floor} days exceeds the ceiling of {ceiling}"
        )
    if floor is not None and period is not None and period < floor:
        raise PeriodError(
            "period_days",
            "below_floor",
            f"rows of class {class_} are kept for at least {floor} days; give as many or more",
        )
    if ceiling is not None and (period is None or period > ceiling):
        raise PeriodError(
            "period_days",
            "above_ceiling",
            f"rows of class {class_} are kept for at most {ceiling} days; give as many or fewer",
        )
    return Bounds(floor, ceiling)
