"""The demo's verdict on itself says no more than what was read back."""

import datetime as dt
import json

import pytest

from deploy.demo.readback import Reading, Totals
from deploy.demo.summary import Outcome, Seconds, document, statement

SECONDS = Seconds(setup=1.0, first_explanation=60.04, total=90.0)


def reading(
    number: int, *, request: int = 0, fve: float = 0.5, is_verified: bool = True, calibration_n: int = 100
) -> Reading:
    return Reading(
        id=f"e{number}",
        request_id=f"r{request}",
        position=number,
        token=" the",
        text="a list",
        fve=fve,
        is_verified=is_verified,
        calibration_n=calibration_n,
        captured_at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    )


def outcome(readings: list[Reading], flags: dict[str, list[str]] | None = None) -> Outcome:
    return Outcome(
        readings=readings, flags=flags or {}, totals=Totals(requests_seen=8, samples=40, dropped=2)
    )


def spread(count: int, requests: int) -> list[Reading]:
    return [reading(number, request=number % requests) for number in range(count)]


@pytest.mark.parametrize(
    ("count", "requests", "is_enough"),
    [(20, 5, True), (60, 12, True), (19, 5, False), (20, 4, False), (500, 1, False)],
)
def test_a_run_is_enough_from_twenty_explanations_of_five_requests(
    count: int, requests: int, *, is_enough: bool
) -> None:
    assert outcome(spread(count, requests)).is_enough is is_enough


def test_the_document_has_every_field_and_is_one_json_line() -> None:
    readings = [*spread(20, 5), reading(99, fve=-1.0, is_verified=False)]
    body = document(
        outcome(readings, {"r1": ["medical", "personal_data"]}), SECONDS, "http://127.0.0.1:8100"
    )

    assert "\n" not in json.dumps(body)
    assert body == {
        "ok": True,
        "requests_seen": 8,
        "samples": 40,
        "explanations": 21,
        "verified": 20,
        "flags": 2,
        "dropped": 2,
        "median_fve": 0.5,
        "seconds": {"setup": 1.0, "first_explanation": 60.0, "total": 90.0},
        "api": "http://127.0.0.1:8100",
    }


def test_a_run_without_explanations_is_not_ok_and_has_no_median() -> None:
    seconds = Seconds(setup=1.0, first_explanation=None, total=2.0)

    body = document(outcome([]), seconds, "http://127.0.0.1:8100", error="the worker died")

    assert body["ok"] is False
    assert body["median_fve"] is None
    assert body["error"] == "the worker died"


def test_an_error_is_never_ok_even_with_enough_explanations() -> None:
    assert document(outcome(spread(20, 5)), SECONDS, "", error="interrupted")["ok"] is False


def test_when_nothing_is_verified_the_demo_says_so_plainly() -> None:
    nothing = outcome([reading(number, is_verified=False) for number in range(7)])

    assert statement(nothing).startswith(
        "0 of 7 explanations verified: this decoder explains nothing you may rely on."
    )


def test_a_decoder_without_calibration_is_called_that() -> None:
    unknown = outcome([reading(number, is_verified=False, calibration_n=0) for number in range(3)])

    assert "has no calibration" in statement(unknown)


def test_a_verified_reading_is_still_called_no_proof() -> None:
    assert "not that a claim is true" in statement(outcome(spread(3, 1)))


def test_totals_count_only_what_came_after_the_start() -> None:
    before = Totals(requests_seen=5, samples=20, dropped=1)

    assert Totals(requests_seen=8, samples=50, dropped=1).since(before) == Totals(
        requests_seen=3, samples=30, dropped=0
    )
