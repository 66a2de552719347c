import datetime as dt

from fastapi.testclient import TestClient
from sqlalchemy.orm import Session, sessionmaker

from tests.integration.service import seed

Headers = dict[str, str]
Sessions = sessionmaker[Session]


def test_a_flag_carries_its_denominators_and_says_that_it_is_not_calibrated(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        stored = seed.add_flag(session, audited)

    [item] = client.get("/v1/flags", headers=admin).json()["items"]

    assert item["id"] == str(stored.id)
    assert (item["positions_matched"], item["positions_required"], item["positions_verified"]) == (3, 2, 14)
    assert item["false_positive_rate"] is None
    assert item["calibrated"] is False
    assert item["hypothesis"] is True
    assert item["decoder"]["name"] == "tiny-l20"


def test_each_filter_keeps_what_it_names(client: TestClient, sessions: Sessions, admin: Headers) -> None:
    later = seed.START + dt.timedelta(hours=1)
    with sessions.begin() as session:
        first, second = seed.add_model(session, "first"), seed.add_model(session, "second")
        one = seed.add_flag(session, first, request_id="a", concept="deception", severity="high")
        two = seed.add_flag(
            session, second, request_id="b", concept="harm", severity="low", captured_at=later
        )

    def found(**parameters: str) -> set[str]:
        answer = client.get("/v1/flags", params=parameters, headers=admin)
        assert answer.status_code == 200, answer.text
        return {item["id"] for item in answer.json()["items"]}

    assert found() == {str(one.id), str(two.id)}
    assert found(model="first") == {str(one.id)}
    assert found(request="b") == {str(two.id)}
    assert found(concept="harm") == {str(two.id)}
    assert found(severity="high") == {str(one.id)}
    # A flag spans its first to its last capture, here two seconds.
    assert found(captured_after=(seed.START + dt.timedelta(seconds=1)).isoformat()) == {
        str(one.id),
        str(two.id),
    }
    assert found(captured_after=later.isoformat()) == {str(two.id)}
    assert found(captured_before=later.isoformat()) == {str(one.id)}


def test_a_flag_that_grows_while_it_is_paged_is_neither_skipped_nor_repeated(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        rows = [
            seed.add_flag(
                session, audited, request_id=f"r{n}", created_at=seed.START + dt.timedelta(seconds=n // 2)
            )
            for n in range(9)
        ]
    expected = [str(row.id) for row in sorted(rows, key=lambda row: (row.created_at, row.id), reverse=True)]

    seen, url = [], "/v1/flags?limit=2"
    while url:
        answer = client.get(url, headers=admin)
        seen += [item["id"] for item in answer.json()["items"]]
        url = answer.links.get("next", {}).get("url", "")
        with sessions.begin() as session:  # the oldest grows: by capture time it would jump ahead
            oldest = session.merge(rows[0])
            oldest.last_captured_at += dt.timedelta(hours=1)
            oldest.positions_matched += 1

    assert seen == expected
