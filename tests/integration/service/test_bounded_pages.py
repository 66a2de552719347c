"""Pages whose filter few rows pass: each looks at so much and no more, and together they have every row."""
# ruff: noqa: E501  # SQL, a column list a line

import datetime as dt
from typing import Any

from fastapi.testclient import TestClient
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from tests.integration.service import seed

Headers = dict[str, str]
Sessions = sessionmaker[Session]
# More than a page looks at, each newer than the seeded row that it is made of.
_MORE_MATCHES = text("""
    WITH more AS (SELECT n, gen_random_uuid() AS sample, gen_random_uuid() AS reading
        FROM generate_series(1, 1300) AS n),
    taken AS (INSERT INTO samples (id, model_id, capture_id, request_id, layer, position, token_id, token_text,
            phase, norm, stratum, inclusion_probability, baseline_probability, reason, screen_scores, captured_at)
        SELECT sample, model_id, capture_id, request_id, layer, n, token_id, token_text, phase, norm, stratum,
            inclusion_probability, baseline_probability, reason, screen_scores,
            captured_at + n * interval '1 minute'
        FROM more, samples WHERE request_id = 'frequent'),
    reading AS (INSERT INTO explanations (id, sample_id, decoder_id, captured_at, text, well_formed, cosine, fve,
            position_class, verified, candidates)
        SELECT reading, sample, decoder_id, explanations.captured_at + n * interval '1 minute', text,
            well_formed, cosine, fve, position_class, verified, candidates
        FROM more, explanations JOIN samples ON samples.id = sample_id WHERE request_id = 'frequent')
    INSERT INTO concept_matches (explanation_id, captured_at, concept, matcher, score)
    SELECT reading, captured_at + n * interval '1 minute', 'food', 'regex', 1
    FROM more, samples WHERE request_id = 'frequent'
""")
_MORE_FLAGS = text("""
    INSERT INTO flags (id, model_id, decoder_id, request_id, capture_id, layer, concept, concepts_digest, severity,
        positions_matched, positions_required, positions_verified, first_captured_at, last_captured_at, created_at)
    SELECT gen_random_uuid(), model_id, decoder_id, 'gone', gen_random_uuid(), layer, concept, concepts_digest,
        severity, 3, 2, 14, first_captured_at, last_captured_at, created_at + n * interval '1 minute'
    FROM flags, generate_series(1, 700) AS n
""")


def walk(client: TestClient, headers: Headers, path: str) -> list[list[Any]]:
    """Return the items of every page."""
    found: list[list[Any]] = []
    while True:
        answer = client.get(path, headers=headers)
        assert answer.status_code == 200, answer.text
        found.append(answer.json()["items"])
        if "next" not in answer.links:
            return found
        path = answer.links["next"]["url"]


def test_a_concept_of_a_seldom_model_is_found_behind_pages_with_nothing_of_it(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    with sessions.begin() as session:
        seed.add_explanation(session, seed.add_model(session), request_id="frequent", concept="food")
        seldom = seed.add_model(session, "seldom")
        # A reading of a day later than its sample, as there may be from before there were days.
        late = seed.add_explanation(session, seldom, request_id="late", concept="food")
        session.execute(
            text("UPDATE samples SET captured_at = captured_at - interval '3 hours' WHERE id = :id"),
            {"id": late.sample_id},
        )
        long_ago = seed.START - dt.timedelta(days=200)
        seed.add_explanation(session, seldom, request_id="old", concept="food", captured_at=long_ago)
        session.execute(_MORE_MATCHES)

    pages = walk(client, admin, "/v1/explanations?concept=food&model=seldom&limit=100")

    assert pages[0] == []
    assert [one["request_id"] for page in pages for one in page] == ["late", "old"]
    assert [len(one["matches"]) for page in pages for one in page] == [1, 1]
    frequent = walk(client, admin, "/v1/explanations?concept=food&model=tiny&limit=200")
    assert sum(map(len, frequent)) == 1301


def test_a_flag_of_a_fidelity_is_found_behind_pages_with_none(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        seed.add_flag(session, audited)
        for position in range(2):
            seed.add_explanation(session, audited, position=position, concept="deception")
        session.execute(_MORE_FLAGS)

    pages = walk(client, admin, "/v1/flags?min_fve=0.4&limit=100")

    assert [len(page) for page in pages] == [0, 0, 1]
    assert pages[-1][0]["request_id"] == "chat-1"
