"""No figure is made without its denominator, or without saying why there is none."""

import pytest
from pydantic import ValidationError

from service.report.model import Bounds, Figure, absent, share

CALL = "GET /v1/detectors"


def test_a_number_without_a_denominator_is_refused() -> None:
    with pytest.raises(ValidationError, match="denominator"):
        Figure(label="recall", value=0.9, of="canaries", query=CALL)
    with pytest.raises(ValidationError, match="why there is no number"):
        Figure(label="recall", value=None, of="canaries", query=CALL)


def test_a_share_is_told_with_its_parts_and_its_interval() -> None:
    bounds = Bounds(lower=0.683, upper=0.988, confidence=0.95)

    found = share("recall", 1800, 2000, "canaries read", CALL, interval=bounds)

    assert found.text == "90% (1,800 of 2,000 canaries read); 95% interval 68.3% to 98.8%"


def test_a_share_of_nothing_is_not_zero() -> None:
    found = share("recall", 0, 0, "canaries read", CALL, interval=None)

    assert (found.value, found.text) == (None, "not known: 0 canaries read")
    assert absent("holds", "not available in this version", CALL).text == "not available in this version"


def test_a_one_sided_limit_and_a_time_say_what_they_are() -> None:
    limit = Bounds(lower=None, upper=0.02, confidence=0.95)
    rate = Figure(
        label="rate", value=0.01, denominator=100, of="benign requests", interval=limit, query=CALL
    )
    time = Figure(label="median", value=9000, unit="seconds", denominator=4, of="incidents", query=CALL)

    assert rate.text == "1% (of 100 benign requests); at most 2% (one-sided 95%)"
    assert time.text == "2.5 h (n = 4 incidents)"
