import datetime as dt
import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, event
from sqlalchemy.orm import Session, sessionmaker

from tests.integration.service import seed

Headers = dict[str, str]
Sessions = sessionmaker[Session]


def test_an_explanation_carries_its_fidelity_and_every_denominator(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        stored = seed.add_explanation(session, audited, concept="deception", claims=seed.CLAIMS)

    [item] = client.get("/v1/explanations", headers=admin).json()["items"]

    assert item["id"] == str(stored.id)
    assert item["text"] == seed.SECRET_TEXT
    assert item["hypothesis"] is True
    assert item["text_withheld"] is False
    assert item["label"].startswith("Hypothesis")
    assert item["inclusion_probability"] == 0.25
    assert (item["stratum"], item["baseline_probability"]) == ("uniform", 0.125)
    assert (item["reason"], item["screen_scores"]) == ("decode", {"anomaly": 31.7})
    assert item["fidelity"] == {
        "cosine": 0.87,
        "fve": 0.41,
        "verified": True,
        "fve_beyond_token": 0.31,
        "position_class": "answer",
        "verified_above": 0.1,
        "candidates": 4,
        "margin": 0.02,
        "shuffled_fve_p95": 0.02,
        "calibration_n": 512,
        "decoder": {"id": str(audited.decoder.id), "name": "tiny-l20", "digest": audited.decoder.digest},
    }
    assert item["claims"] == seed.CLAIMS
    assert item["anomaly"] == {
        "score": 31.7,
        "p_value": 0.013,
        "p_value_floor": 1 / 513,
        "calibration_n": 512,
    }
    assert item["matches"] == [{"concept": "deception", "matcher": "regex", "score": 1.0}]


@pytest.mark.parametrize(
    ("thresholds", "applied"),
    [(None, 0.02), ({"prompt": 0.2}, 0.02), ({"prompt": 0.2, "answer": 0.1}, 0.1), ({"answer": -0.1}, 0.0)],
)
def test_an_explanation_shows_the_threshold_that_applied_to_it(
    client: TestClient,
    sessions: Sessions,
    admin: Headers,
    thresholds: dict[str, float] | None,
    applied: float,
) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        audited.decoder.verified_above = thresholds
        seed.add_explanation(session, audited)

    [item] = client.get("/v1/explanations", headers=admin).json()["items"]

    assert item["fidelity"]["verified_above"] == applied
    assert item["claims"] is None


def test_one_explanation_by_id_is_the_same_object_as_in_the_list(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    with sessions.begin() as session:
        seed.add_explanation(session, seed.add_model(session), anomaly_score=None)

    [listed] = client.get("/v1/explanations", headers=admin).json()["items"]
    got = client.get(f"/v1/explanations/{listed['id']}", headers=admin)

    assert got.json() == listed
    assert listed["anomaly"] is None


def test_an_unknown_explanation_is_a_404_problem(client: TestClient, admin: Headers) -> None:
    answer = client.get(f"/v1/explanations/{uuid.uuid4()}", headers=admin)

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "unknown_explanation"


def test_each_filter_keeps_what_it_names(client: TestClient, sessions: Sessions, admin: Headers) -> None:
    later = seed.START + dt.timedelta(minutes=1)
    with sessions.begin() as session:
        first, second = seed.add_model(session, "first", 20), seed.add_model(session, "second", 7)
        plain = seed.add_explanation(session, first, request_id="a/b", verified=False)
        matched = seed.add_explanation(session, first, request_id="c", position=1, concept="deception")
        other = seed.add_explanation(session, second, request_id="c", captured_at=later)

    def found(**parameters: str) -> set[str]:
        answer = client.get("/v1/explanations", params=parameters, headers=admin)
        assert answer.status_code == 200, answer.text
        return {item["id"] for item in answer.json()["items"]}

    assert found() == {str(plain.id), str(matched.id), str(other.id)}
    assert found(model="first") == {str(plain.id), str(matched.id)}
    assert found(request="a/b") == {str(plain.id)}
    assert found(layer="7") == {str(other.id)}
    assert found(concept="deception") == {str(matched.id)}
    assert found(verified="false") == {str(plain.id)}
    assert found(verified="true", request="c", model="second") == {str(other.id)}
    assert found(captured_after=later.isoformat()) == {str(other.id)}
    assert found(captured_before=later.isoformat()) == {str(plain.id), str(matched.id)}
    assert found(model="nobody") == set()


def _follow(client: TestClient, headers: Headers, **parameters: Any) -> list[str]:
    """Read all pages by their Link headers; returns the ids in order."""
    seen = []
    answer = client.get("/v1/explanations", params=parameters, headers=headers)
    while True:
        assert answer.status_code == 200, answer.text
        seen += [item["id"] for item in answer.json()["items"]]
        if "next" not in answer.links:
            assert answer.json()["next_cursor"] is None
            return seen
        answer = client.get(answer.links["next"]["url"], headers=headers)


def test_pages_are_newest_first_and_ties_in_time_lose_nothing(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        rows = [
            seed.add_explanation(
                session, audited, position=n, captured_at=seed.START + dt.timedelta(microseconds=n // 4)
            )
            for n in range(25)
        ]

    expected = [
        str(row.id) for row in sorted(rows, key=lambda row: (row.captured_at, row.id), reverse=True)
    ]
    assert _follow(client, admin, limit=3) == expected
    assert _follow(client, admin, limit=25) == expected
    assert _follow(client, admin, limit=3, model="tiny", verified="true") == expected


def test_pages_of_a_seldom_model_among_others_are_newest_first_and_whole(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    with sessions.begin() as session:
        common, seldom = seed.add_model(session, "common"), seed.add_model(session, "seldom", 7)
        rows = []
        for n in range(200):
            at = seed.START + dt.timedelta(hours=n // 2)  # over some days, two a moment
            seed.add_explanation(session, common, position=n, captured_at=at)
            if n % 10 < 2:
                is_verified = n % 20 < 10
                rows.append(
                    seed.add_explanation(session, seldom, position=n, captured_at=at, verified=is_verified)
                )
    rows.sort(key=lambda row: (row.captured_at, row.id), reverse=True)
    ids = [str(row.id) for row in rows]

    assert _follow(client, admin, limit=7, model="seldom") == ids
    unverified = [str(row.id) for row in rows if not row.verified]
    assert _follow(client, admin, limit=4, model="seldom", verified="false") == unverified
    first, last = rows[-1], rows[4]
    within = [str(row.id) for row in rows if row.captured_at < last.captured_at]
    span = {
        "captured_after": first.captured_at.isoformat(),
        "captured_before": last.captured_at.isoformat(),
    }
    assert _follow(client, admin, limit=5, model="seldom", **span) == within


def test_paging_meets_every_old_row_exactly_once_while_others_are_inserted(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        old = {
            str(
                seed.add_explanation(
                    session, audited, position=n, captured_at=seed.START + dt.timedelta(seconds=n)
                ).id
            )
            for n in range(60)
        }
    stop, inserted = threading.Event(), threading.Event()

    def insert() -> None:
        position = 1000
        while not stop.is_set():
            with sessions.begin() as session:  # before, between and after the rows that exist
                at = seed.START + dt.timedelta(seconds=(position * 7) % 90 - 10)
                seed.add_explanation(session, audited, position=position, captured_at=at)
            position += 1
            inserted.set()

    writer = threading.Thread(target=insert)
    writer.start()
    try:
        assert inserted.wait(30)
        seen = _follow(client, admin, limit=5)
    finally:
        stop.set()
        writer.join()

    assert len(seen) == len(set(seen)), "a row was repeated"
    assert old <= set(seen), "a row was skipped"


def test_a_cursor_of_other_filters_or_another_listing_is_refused(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        for n in range(3):
            seed.add_explanation(session, audited, position=n)
    cursor = client.get("/v1/explanations", params={"limit": 1}, headers=admin).json()["next_cursor"]

    for path, parameters in (
        ("/v1/explanations", {"cursor": cursor, "model": "tiny"}),
        ("/v1/flags", {"cursor": cursor}),
    ):
        answer = client.get(path, params=parameters, headers=admin)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["code"] == "foreign_cursor"


@pytest.mark.parametrize("cursor", ["x", "AAAA", "é", "A" * 55, "A" * 64, "A" * 4000, "%00"])
def test_a_broken_cursor_is_a_clear_422(client: TestClient, admin: Headers, cursor: str) -> None:
    answer = client.get("/v1/explanations", params={"cursor": cursor}, headers=admin)

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "cursor"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("modle=tiny", "modle"),
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=1&limit=2", "limit"),
        ("layer=-1", "layer"),
        ("layer=99999999999999999999", "layer"),
        ("verified=maybe", "verified"),
        ("model=%00", "model"),
        ("request=", "request"),
        ("request=" + "x" * 16_385, "request"),
        ("concept=", "concept"),
        ("captured_after=yesterday", "captured_after"),
        ("captured_after=2026-11-23T05:00:00", "captured_after"),
        ("captured_after=1700000000", "captured_after"),
        ("captured_before=0001-01-01T00:00:00%2B14:00", "captured_before"),
        ("captured_before=9999-12-31T23:59:59-14:00", "captured_before"),
    ],
)
def test_a_wrong_parameter_is_a_422_that_names_it(
    client: TestClient, admin: Headers, query: str, field: str
) -> None:
    answer = client.get(f"/v1/explanations?{query}", headers=admin)

    assert answer.status_code == 422
    assert [wrong["field"] for wrong in answer.json()["errors"]] == [field]


def test_a_page_costs_the_same_number_of_queries_whatever_its_size(
    client: TestClient, sessions: Sessions, reader: Engine, headers_for: Callable[..., Headers]
) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        for n in range(31):
            seed.add_explanation(session, audited, position=n, concept="deception")
    headers = headers_for("explanations:read")
    # Of a day that is full: a page that is not goes on to the days before.
    asked = {"captured_before": (seed.START + dt.timedelta(hours=1)).isoformat()}
    client.get("/v1/explanations", headers=headers)  # records the key's first use
    statements: list[str] = []
    event.listen(reader, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))

    def cost(limit: int) -> int:
        statements.clear()
        page = client.get("/v1/explanations", params=asked | {"limit": limit}, headers=headers)
        assert len(page.json()["items"]) == limit
        return sum("set_config" not in statement for statement in statements)

    assert (
        cost(2) == cost(30) == 3
    )  # the key, the rows, their matches; besides, each transaction sets its timeouts


def test_an_unknown_model_is_an_empty_page_for_which_no_explanation_is_read(
    client: TestClient, sessions: Sessions, reader: Engine, admin: Headers
) -> None:
    statements: list[str] = []
    with sessions.begin() as session:
        seed.add_explanation(session, seed.add_model(session))
    event.listen(reader, "before_cursor_execute", lambda *heard: statements.append(heard[2]))

    page = client.get("/v1/explanations", params={"model": "nobody-serves-it"}, headers=admin)

    assert page.json() == {"items": [], "next_cursor": None}
    assert [statement for statement in statements if "explanations" in statement] == []
    assert len(client.get("/v1/explanations", params={"model": "tiny"}, headers=admin).json()["items"]) == 1
