"""What one id costs under which a client has stored 200,000 samples: no more than is listed."""

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, event, text
from sqlalchemy.orm import Session, sessionmaker

from tests.integration.service import seed

Headers = dict[str, str]
Sessions = sessionmaker[Session]

SAMPLES = 200_000
OF_CAPTURE = 10
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
HOT = "hot"
# Pages of 8 KiB that a page of an answer may touch, in the server's memory or on its disk. The table of
# samples alone has more than 5,000, and nearly all of them are of this id.
MOST_BLOCKS = 5_000
_FILL = """
    WITH made AS (
        INSERT INTO samples (
            id, model_id, capture_id, request_id, layer, position, token_id, token_text, phase, norm,
            stratum, trace_id, span_id, inclusion_probability, baseline_probability, reason,
            screen_scores, captured_at
        )
        SELECT
            gen_random_uuid(), model_id, md5((n / :of_capture)::text)::uuid, :name, 20, n, 7, 'x',
            'decode', 1.0, 'uniform', :trace_id, NULL, 0.5, 0.5, 'decode', '{}',
            captured_at + n * interval '1 ms'
        FROM generate_series(0, :samples - 1) AS n,
            (SELECT model_id, captured_at FROM samples LIMIT 1) AS first
        RETURNING id, captured_at
    )
    INSERT INTO explanations (
        id, sample_id, decoder_id, captured_at, text, well_formed, cosine, fve, position_class,
        verified, candidates
    )
    SELECT
        gen_random_uuid(), made.id, decoder_id, made.captured_at, 'a state', true, 0.8, 0.5, 'answer',
        true, 1
    FROM made, (SELECT decoder_id FROM explanations LIMIT 1) AS first
"""
_NAME = """
    INSERT INTO request_names (name, capture, model_id, capture_id, request_id, captured_at)
    SELECT request_id, capture_id, model_id, capture_id, request_id, min(captured_at)
    FROM samples WHERE request_id = :name GROUP BY request_id, capture_id, model_id
"""


@pytest.fixture
def hot(sessions: Sessions, engine: Engine) -> Engine:
    """A store with one id and one trace of 200,000 samples, in captures of ten."""
    with sessions.begin() as session:
        audited = seed.add_model(session)
        seed.add_explanation(session, audited, request_id="cold")
        values = {"name": HOT, "trace_id": TRACE_ID, "samples": SAMPLES, "of_capture": OF_CAPTURE}
        session.execute(text("SET LOCAL statement_timeout = 0"))
        session.execute(text(_FILL), values)
        session.execute(text(_NAME), {"name": HOT})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE samples, explanations, request_names"))
    return engine


@contextmanager
def blocks_touched(reader: Engine) -> Iterator[Callable[[], int]]:
    """Explain every query that is sent meanwhile; the yielded function adds up what they touched."""
    touched: list[int] = []

    def explain(*arguments: Any) -> None:
        _, cursor, statement, parameters, *_ = arguments
        if statement.startswith("SELECT"):
            cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", parameters)
            plan = cursor.fetchone()[0][0]["Plan"]
            touched.append(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])

    event.listen(reader, "before_cursor_execute", explain)
    yield lambda: sum(touched)
    event.remove(reader, "before_cursor_execute", explain)


def pages(
    client: TestClient, reader: Engine, headers: Headers, path: str, most: int
) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield so many pages at most, each with the blocks that its queries touched."""
    for _ in range(most):
        with blocks_touched(reader) as blocks:
            answer = client.get(path, headers=headers)
            assert answer.status_code == 200, answer.text
            yield answer.json(), blocks()
        if "next" not in answer.links:
            break
        path = answer.links["next"]["url"]


@pytest.mark.usefixtures("hot")
def test_a_page_of_a_hot_id_or_trace_reads_no_more_than_it_lists(
    client: TestClient, reader: Engine, admin: Headers
) -> None:
    costs = {
        path: [blocks for _, blocks in pages(client, reader, admin, path, 2)]
        for path in (
            f"/v1/explanations?request={HOT}&limit=200&verified=true&model=tiny",
            f"/v1/requests/{HOT}",
            f"/v1/requests?trace_id={TRACE_ID}",
        )
    }
    walked = list(pages(client, reader, admin, f"/v1/explanations?request={HOT}&limit=197", 20))
    costs["walked"] = [blocks for _, blocks in walked]

    assert max(map(max, costs.values())) < MOST_BLOCKS, costs
    found = [one for page, _ in walked for one in page["items"]]
    # Captures lie one behind the other here, so that the whole is in the order of time.
    newest = seed.START + dt.timedelta(milliseconds=SAMPLES - 1)
    assert [dt.datetime.fromisoformat(one["captured_at"]) for one in found] == [
        newest - dt.timedelta(milliseconds=number) for number in range(20 * 197)
    ]
    assert len({one["capture_id"] for one in found}) == 20 * 197 // OF_CAPTURE
