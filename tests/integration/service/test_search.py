"""Words inside explanations: found, marked, bounded, entered in the access log, and told to nobody else."""

import datetime as dt
import hashlib
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session, sessionmaker

from service.store import identity
from service.store.access.tables import AccessEntry, Action
from service.store.read import explanations, words
from service.store.tables import SEARCHED_CHARACTERS
from service.store.tenants import scope
from service.store.tenants.tables import Tenant
from tests.integration.service import seed

Headers = dict[str, str]
Sessions = sessionmaker[Session]
SINCE, UNTIL = "2026-11-10T00:00:00Z", "2026-11-24T00:00:00Z"
TEXTS = (
    "An answer about first aid and a bandage.",
    "A question about travel by train.",
    "Aid comes first, says the <b>TRAIN</b>.",
)


@pytest.fixture
def stored(sessions: Sessions) -> list[uuid.UUID]:
    """Ids by text, the second a minute before the first, the third two days before."""
    with sessions.begin() as session:
        audited = seed.add_model(session)
        times = (dt.timedelta(0), dt.timedelta(minutes=-1), dt.timedelta(days=-2))
        rows = [
            seed.add_explanation(
                session,
                audited,
                position=number,
                text=one,
                captured_at=seed.START + at,
                verified=number < 2,
            )
            for number, (one, at) in enumerate(zip(TEXTS, times, strict=True))
        ]
        return [row.id for row in rows]


def search(client: TestClient, headers: Headers, q: str, **parameters: Any) -> dict[str, Any]:
    asked = {"q": q, "captured_after": SINCE, "captured_before": UNTIL, **parameters}
    answer = client.get("/v1/explanations", params=asked, headers=headers)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize(
    ("q", "numbers"),
    [
        ("train", [1, 2]),
        ("TRAIN travel", [1]),
        ("first aid", [0, 2]),
        ('"first aid"', [0]),
        ("bandage or travel", [0, 1]),
        ("aid -bandage", [2]),
        ("trains", []),
        ("' & | ! :* \\ train", [1, 2]),
    ],
)
def test_readings_are_found_by_their_words_newest_first(
    client: TestClient, admin: Headers, stored: Sequence[uuid.UUID], q: str, numbers: list[int]
) -> None:
    found = search(client, admin, q)

    assert [item["id"] for item in found["items"]] == [str(stored[number]) for number in numbers]
    assert found["next_cursor"] is None
    assert found["search"]["complete"] is True
    assert found["search"]["searched_since"] == SINCE
    assert found["search"]["searched_characters"] == SEARCHED_CHARACTERS


def test_what_was_found_is_marked_by_ranges_of_characters(
    client: TestClient, admin: Headers, stored: Sequence[uuid.UUID]
) -> None:
    found = search(client, admin, "aid train -bandage")

    [marks] = found["search"]["highlights"]
    assert marks["explanation_id"] == str(stored[2])
    marked = [TEXTS[2][one["start"] : one["end"]] for one in marks["ranges"]]
    assert marked == ["Aid", "TRAIN"]


def test_words_hold_together_with_the_other_filters(
    client: TestClient, admin: Headers, stored: Sequence[uuid.UUID]
) -> None:
    def found(**parameters: Any) -> list[str]:
        return [item["id"] for item in search(client, admin, "train", **parameters)["items"]]

    assert found(verified="true") == [str(stored[1])]
    assert found(captured_before="2026-11-22T00:00:00Z") == [str(stored[2])]
    assert found(request="chat-1") == [str(stored[1]), str(stored[2])]
    assert found(layer=7) == found(model="other") == found(max_anomaly_p=0.012) == []
    assert found(max_anomaly_p=0.013, model="tiny", layer=20) == [str(stored[1]), str(stored[2])]


def test_pages_meet_everything_once_also_over_days_and_say_what_is_left(
    client: TestClient, admin: Headers, sessions: Sessions
) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        ids = [
            str(
                seed.add_explanation(
                    session,
                    audited,
                    position=n,
                    text="a word",
                    captured_at=seed.START - n * dt.timedelta(hours=30),
                ).id
            )
            for n in range(40)
        ]

    met, pages = [], 0
    cursor: dict[str, str] = {}
    while True:
        found = search(client, admin, "word", limit=7, captured_after="2026-09-01T00:00:00Z", **cursor)
        met += [item["id"] for item in found["items"]]
        pages += 1
        assert found["search"]["complete"] is (found["next_cursor"] is None)
        if found["next_cursor"] is None:
            break
        assert found["search"]["searched_since"] > "2026-09-01T00:00:00Z"
        cursor = {"cursor": found["next_cursor"]}

    assert met == ids
    assert pages > 40 // 7


def test_a_common_word_is_found_among_the_newest_and_the_page_says_where_it_stopped(
    client: TestClient, admin: Headers, sessions: Sessions
) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        seed.add_explanation(
            session, audited, text="a thing every day", captured_at=seed.START - dt.timedelta(hours=1)
        )
        seed.add_explanation(session, audited, text="every thing")
        # As one statement: what is looked up by index at once, and more.
        session.execute(
            text("""
            WITH numbers AS (SELECT n, gen_random_uuid() AS sample FROM generate_series(1, 2100) AS n),
            taken AS (
                INSERT INTO samples (id, model_id, capture_id, request_id, layer, position, token_id,
                    token_text, phase, norm, stratum, inclusion_probability, baseline_probability, reason,
                    screen_scores, captured_at)
                SELECT sample, model_id, capture_id, request_id, layer, 10 + n, token_id, token_text, phase,
                    norm, stratum, inclusion_probability, baseline_probability, reason, screen_scores,
                    captured_at + n * interval '1 second'
                FROM samples, numbers WHERE position = 0 AND captured_at = :start RETURNING 1
            )
            INSERT INTO explanations (id, sample_id, decoder_id, captured_at, text, well_formed, cosine,
                fve, position_class, verified, candidates)
            SELECT gen_random_uuid(), sample, decoder_id, captured_at + n * interval '1 second', text,
                well_formed, cosine, fve, position_class, verified, candidates
            FROM explanations, numbers WHERE captured_at = :start
            """),
            {"start": seed.START},
        )

    first = search(client, admin, "every", limit=100)
    other = search(client, admin, '"thing every"', limit=100)
    pages = [other]
    while (cursor := pages[-1]["next_cursor"]) is not None:
        pages.append(search(client, admin, '"thing every"', limit=100, cursor=cursor))

    assert len(first["items"]) == 100
    assert first["search"]["complete"] is False
    assert (other["items"], other["search"]["complete"]) == ([], False)
    assert other["search"]["searched_since"] > "2026-11-23T05:10:00Z"
    assert [item["text"] for page in pages for item in page["items"]] == ["a thing every day"]


@pytest.mark.parametrize(
    ("parameters", "field", "code"),
    [
        ({"q": "train"}, "captured_after", "period_required"),
        ({"q": "-train", "captured_after": SINCE}, "q", "no_words"),
        ({"q": "!?", "captured_after": SINCE}, "q", "no_words"),
        ({"q": "", "captured_after": SINCE}, "q", "string_too_short"),
        ({"q": "a" * 201, "captured_after": SINCE}, "q", "string_too_long"),
        ({"max_anomaly_p": "0.06"}, "max_anomaly_p", "less_than_equal"),
        ({"max_anomaly_p": "0"}, "max_anomaly_p", "greater_than"),
    ],
    ids=["no period", "only left out", "only signs", "empty", "long", "too common", "no p-value"],
)
def test_what_cannot_be_searched_is_refused_by_name(
    client: TestClient, admin: Headers, parameters: dict[str, str], field: str, code: str
) -> None:
    answer = client.get("/v1/explanations", params=parameters, headers=admin)

    assert answer.status_code == 422
    assert [(one["field"], one["code"]) for one in answer.json()["errors"]] == [(field, code)]


@pytest.mark.parametrize("q", ["train", "nothing-like-it", "-train"])
def test_who_may_not_read_text_learns_nothing_by_searching_it(
    client: TestClient,
    headers_for: Callable[..., Headers],
    stored: Sequence[uuid.UUID],
    sessions: Sessions,
    q: str,
) -> None:
    assert stored
    parameters = {"q": q, "captured_after": SINCE}
    without_scope = headers_for("explanations:read") | {"Subtext-Purpose": "debugging"}
    without_purpose = headers_for("explanations:read", "explanations:read_text")
    without_purpose.pop("Subtext-Purpose")

    denied = client.get("/v1/explanations", params=parameters, headers=without_scope)
    unstated = client.get("/v1/explanations", params=parameters, headers=without_purpose)

    assert (denied.status_code, denied.json()["code"]) == (403, "missing_scope")
    assert unstated.status_code == 422
    [error] = unstated.json()["errors"]
    assert (error["field"], error["code"]) == ("Subtext-Purpose", "purpose_required")
    with sessions() as session:
        [entry] = session.scalars(select(AccessEntry))
    assert (entry.action, entry.result) == (Action.DENY, "missing_scope")


@pytest.mark.parametrize(("q", "found"), [("train", 2), ("nobody", 0)])
def test_each_search_is_entered_with_the_words_digest_also_when_it_finds_nothing(
    client: TestClient,
    admin: Headers,
    stored: Sequence[uuid.UUID],
    sessions: Sessions,
    *,
    q: str,
    found: int,
) -> None:
    search(client, admin, q)

    with sessions() as session:
        [entry] = session.scalars(select(AccessEntry))
    assert (entry.action, entry.purpose, entry.subjects_total) == (Action.READ_TEXT, "debugging", found)
    assert set(entry.subject_ids) <= set(stored)
    assert entry.details == {"words_sha256": hashlib.sha256(q.encode()).hexdigest()}


def test_a_tenant_finds_its_own_and_the_index_is_used_under_row_level_security(
    sessions: Sessions, reader: Engine
) -> None:
    acme = identity.tenant_id("acme")
    with sessions.begin() as session:
        session.add(Tenant(id=acme, name="acme"))
        session.flush()
        for tenant in (scope.DEFAULT_ID, acme):
            scope.set_tenant(session, tenant)
            seed.add_explanation(session, seed.add_model(session, str(tenant)), text="a common secret")
    find = text(
        "SELECT found_id FROM subtext_find_words('secret', '2026-11-01Z', '2026-12-01Z', NULL, NULL, 10)"
    )

    with sessionmaker(reader)() as session:
        assert session.scalar(find) == []
        session.rollback()
        scope.enter(session, scope.Reach(acme))
        [found] = session.scalar(find)
        assert (
            session.scalar(text("SELECT tenant_id FROM explanations WHERE id = :id"), {"id": found}) == acme
        )
        session.rollback()
        # Whoever may read one model alone is told where others' readings are, and cannot read them.
        scope.enter(session, scope.Reach(acme, ["none"]))
        wanted = explanations.Filter(words="secret", captured_after=seed.START)
        assert words.search(session, wanted, None, 10, seed.START).page.items == []


def test_a_text_of_any_length_is_stored_and_its_beginning_is_searched(
    client: TestClient, admin: Headers, sessions: Sessions
) -> None:
    long = "beginning " + " ".join(f"w{number}" for number in range(250_000)) + " ending"
    with sessions.begin() as session:
        stored = seed.add_explanation(session, seed.add_model(session), text=long)

    assert [item["id"] for item in search(client, admin, "beginning")["items"]] == [str(stored.id)]
    assert search(client, admin, "ending")["items"] == []


def test_readings_of_anomalous_states_are_found_without_text(
    client: TestClient, headers_for: Callable[..., Headers], sessions: Sessions
) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        strange = seed.add_explanation(session, audited, anomaly_p_value=0.002)
        seed.add_explanation(session, audited, position=1, anomaly_p_value=0.4)
        seed.add_explanation(session, audited, position=2, anomaly_score=None)

    reader = headers_for("explanations:read")
    for also in ("", "model=tiny", "layer=20", "request=chat-1"):
        parameters = f"max_anomaly_p=0.01&{also}".rstrip("&")
        answer = client.get("/v1/explanations", params=parameters, headers=reader).json()

        assert [item["id"] for item in answer["items"]] == [str(strange.id)]
        assert answer["search"] is None


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize(
    "q",
    [
        "'); DROP TABLE samples; --",
        "a & b | !c <-> d:* (((",
        "\\' \\\\ '' \" aid",
        "(a+)+$ [[:alpha:]]* %_",
        "x.example/a<1>b'c!d aid",
        f'-"x.example/{chr(39) * 80} b" aid',
        f"-x.example/{chr(39) * 150} aid",
        "\U0001f682 aid \u202e\u0301",
        'or or -or "or"',
    ],
    ids=[
        "SQL",
        "operators",
        "quotes",
        "pattern",
        "path",
        "quotes of a phrase",
        "many quotes",
        "astral",
        "or",
    ],
)
def test_hostile_words_are_answered_at_once(client: TestClient, admin: Headers, q: str) -> None:
    began = time.monotonic()
    answer = client.get("/v1/explanations", params={"q": q, "captured_after": SINCE}, headers=admin)

    assert answer.status_code in {200, 422}, answer.text
    assert time.monotonic() - began < 5
