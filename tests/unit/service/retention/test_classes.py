import pytest

from service.retention.classes import Bounds, PeriodError, RetentionClass, bounds_of

AI_ACT, HIPAA, MINIMAL, CUSTOM = RetentionClass
NONE = Bounds(None, None)


@pytest.mark.parametrize(
    ("class_", "asked", "period", "bounds"),
    [
        (AI_ACT, NONE, 183, (183, None)),
        (AI_ACT, NONE, None, (183, None)),
        (AI_ACT, Bounds(200, 400), 400, (200, 400)),
        (HIPAA, NONE, 2192, (2192, None)),
        (MINIMAL, NONE, 30, (None, 30)),
        (MINIMAL, Bounds(None, 7), 1, (None, 7)),
        (CUSTOM, NONE, None, (None, None)),
        (CUSTOM, Bounds(7, 7), 7, (7, 7)),
    ],
)
def test_a_period_within_its_class_has_the_narrower_bounds(
    class_: RetentionClass, asked: Bounds, period: int | None, bounds: tuple[int | None, int | None]
) -> None:
    assert bounds_of(class_, asked, period) == bounds


@pytest.mark.parametrize(
    ("class_", "asked", "period", "field_and_code", "told"),
    [
        (AI_ACT, NONE, 182, ("period_days", "below_floor"), "at least 183 days"),
        (HIPAA, NONE, 2191, ("period_days", "below_floor"), "at least 2192 days"),
        (MINIMAL, NONE, 31, ("period_days", "above_ceiling"), "at most 30 days"),
        (MINIMAL, NONE, None, ("period_days", "above_ceiling"), "at most 30 days"),
        (AI_ACT, Bounds(30, None), 200, ("floor_days", "below_class"), "183"),
        (MINIMAL, Bounds(None, 60), 10, ("ceiling_days", "above_class"), "30"),
        (CUSTOM, Bounds(9, 8), 8, ("floor_days", "above_ceiling"), "9 days exceeds the ceiling of 8"),
        (AI_ACT, Bounds(None, 100), 100, ("floor_days", "above_ceiling"), "183"),
    ],
)
def test_what_the_class_does_not_allow_is_refused_by_name(
    class_: RetentionClass, asked: Bounds, period: int | None, field_and_code: tuple[str, str], told: str
) -> None:
    with pytest.raises(PeriodError, match=told) as caught:
        bounds_of(class_, asked, period)

    assert (caught.value.field, caught.value.code) == field_and_code
