import datetime as dt

import pytest

from service.api.routes.coverage import CoverageParameters, plan
from service.errors import ProblemError

NOW = dt.datetime(2026, 11, 23, 5, 30, 12, tzinfo=dt.UTC)


def _at(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(f"2026-11-{text}+00:00")


def test_the_default_is_the_last_hour_widened_to_whole_minutes() -> None:
    planned = plan(CoverageParameters(), NOW)

    assert (planned.start, planned.end) == (_at("23T04:30:00"), _at("23T05:31:00"))


def test_bounds_are_widened_to_whole_steps() -> None:
    asked = {"from": "2026-11-20T10:20:00Z", "to": "2026-11-22T00:00:00Z", "step": "day"}

    planned = plan(CoverageParameters.model_validate(asked), NOW)

    assert (planned.start, planned.end) == (_at("20T00:00:00"), _at("22T00:00:00"))


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"from": "2026-11-23T06:00:00Z"}, "empty_range"),
        ({"from": "2026-11-23T05:00:00Z", "to": "2026-11-23T05:00:00Z"}, "empty_range"),
        ({"from": "2026-11-21T05:00:00Z"}, "range_too_long"),
        ({"from": "1970-01-01T00:00:00Z", "to": "2200-01-01T00:00:00Z", "step": "day"}, "range_too_long"),
    ],
)
def test_an_empty_or_endless_range_is_refused(asked: dict[str, str], code: str) -> None:
    with pytest.raises(ProblemError) as caught:
        plan(CoverageParameters.model_validate(asked), NOW)

    assert [wrong.code for wrong in caught.value.problem.errors] == [code]
