"""The demo's verdict on itself says no more than what was read back."""

import datetime as dt
import json

import pytest

from deploy.demo.readback import Reading, Totals
from deploy.demo.summary import Outcome, Seconds, best, document, statement

EVIDENCE = {"findings": 0, "rows_verified": 30, "entries": 31, "checkpoints": 4}
SECONDS = Seconds(setup=1.0, first_explanation=60.04, total=90.0)


def reading(
    number: int,
    *,
    request: int = 0,
    fve: float = 0.5,
    beyond: float | None = 0.3,
    is_verified: bool = True,
    calibration_n: int = 100,
) -> Reading:
    return Reading(
        id=f"e{number}",
        request_id=f"r{request}",
        position=number,
        token=" the",
        text=f"a list {number}",
        fve=fve,
        fve_beyond_token=beyond,
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
        outcome(readings, {"r1": ["medical", "personal_data"]}),
        SECONDS,
        "http://127.0.0.1:8100",
        evidence=EVIDENCE,
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
        "median_fve_beyond_token": 0.3,
        "requests": [],
        "seconds": {"setup": 1.0, "first_explanation": 60.0, "total": 90.0},
        "evidence": EVIDENCE,
        "api": "http://127.0.0.1:8100",
    }


def test_each_request_of_the_demo_shows_its_best_reading_and_its_theme() -> None:
    found = Outcome(
        readings=[
            reading(1, request=1, beyond=0.2),
            reading(2, request=1, beyond=0.31456),
            reading(3, request=1, beyond=0.9, is_verified=False),
            reading(4, request=2, beyond=None, is_verified=False),
            reading(5, request=9),
        ],
        flags={},
        totals=Totals(),
        prompts={"r1": "My head\n hurts.", "r2": "x" * 500},
        summaries={"r1": "about medicine (2 of 3 readings)"},
    )

    requests = document(found, SECONDS, "")["requests"]

    assert requests == [
        {
            "prompt": "My head hurts.",
            "reading": "a list 2",
            "verified": True,
            "fve_beyond_token": 0.3146,
            "summary": "about medicine (2 of 3 readings)",
        },
        {
            "prompt": "x" * 200,
            "reading": "a list 4",
            "verified": False,
            "fve_beyond_token": None,
            "summary": None,
        },
    ]


def test_without_a_verified_reading_the_best_is_the_best_of_all() -> None:
    unverified = [
        reading(n, beyond=beyond, is_verified=False) for n, beyond in enumerate([None, -0.4, -0.2])
    ]

    assert best(unverified) == unverified[2]
    assert best(unverified[:1]) == unverified[0]


def test_a_run_without_explanations_is_not_ok_and_has_no_median() -> None:
    seconds = Seconds(setup=1.0, first_explanation=None, total=2.0)

    body = document(outcome([]), seconds, "http://127.0.0.1:8100", error="the worker died")

    assert body["ok"] is False
    assert body["median_fve"] is None
    assert body["median_fve_beyond_token"] is None
    assert body["requests"] == []
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
