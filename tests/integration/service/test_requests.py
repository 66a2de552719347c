import datetime as dt
import uuid
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, event, select
from sqlalchemy.orm import Session, sessionmaker

from service.store.access.tables import AccessEntry, Action
from service.store.read import requests
from service.store.tables import Sample
from subtext_sidecar.contract.request_id import forms
from tests.integration.service import seed

Headers = dict[str, str]
Sessions = sessionmaker[Session]


def test_a_request_tells_samples_explanations_flags_and_what_was_looked_at(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        for position in range(4):
            seed.add_explanation(
                session,
                audited,
                request_id="a/b c",
                position=position,
                verified=position > 0,
                concept="deception",
            )
        session.add(
            Sample(
                id=uuid.uuid4(),
                model_id=audited.model.id,
                request_id="a/b c",
                capture_id=seed.capture_of(audited, "a/b c"),
                layer=20,
                position=9,
                token_id=1,
                token_text="x",
                phase="prefill",
                norm=1.0,
                stratum="opt_in",
                inclusion_probability=1.0,
                baseline_probability=0.0,
                reason="screen_probe_deception",
                screen_scores={"probe_deception": 4.5},
                captured_at=seed.START,
            )
        )
        seed.add_flag(session, audited, request_id="a/b c")
        seed.add_explanation(session, audited, request_id="other")

    report = client.get("/v1/requests/a%2Fb%20c", headers=admin).json()

    assert report["request_id"] == "a/b c"
    assert report["captures_total"] == 1
    (report,) = report["captures"]
    assert (report["model"], report["capture_id"]) == ("tiny", str(seed.capture_of(audited, "a/b c")))
    assert report["first_captured_at"] == "2026-11-23T05:00:00Z"
    assert [sample["position"] for sample in report["samples"]] == [0, 1, 2, 3, 9]
    assert [found["position"] for found in report["explanations"]] == [0, 1, 2, 3]
    assert [found["matches"][0]["concept"] for found in report["explanations"]] == ["deception"] * 4
    assert [flag["concept"] for flag in report["flags"]] == ["deception"]
    coverage = report["coverage"]
    assert coverage["positions_sampled"] == coverage["positions_listed"] == 5
    assert coverage["truncated"] is False
    assert coverage["positions_explained"] == {"numerator": 4, "denominator": 5, "value": 0.8}
    assert coverage["positions_verified"] == {"numerator": 3, "denominator": 4, "value": 0.75}
    assert coverage["reasons"] == [
        {"reason": "decode", "positions": 4, "probability_min": 0.25, "probability_max": 0.25},
        {
            "reason": "screen_probe_deception",
            "positions": 1,
            "probability_min": 1.0,
            "probability_max": 1.0,
        },
    ]
    assert {spot["code"] for spot in coverage["blind_spots"]} >= {"not_sampled", "prefix_cached"}
    found = report["samples"][4]
    assert (found["stratum"], found["baseline_probability"]) == ("opt_in", 0.0)
    assert found["screen_scores"] == {"probe_deception": 4.5}


def test_a_request_is_summarized_over_its_readings(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    unsure = seed.CLAIMS | {"area": None, "areas": {}, "kinds": [], "kind_scores": {}}
    with sessions.begin() as session:
        audited = seed.add_model(session)
        for position, claims in enumerate([seed.CLAIMS, seed.CLAIMS, unsure, None]):
            seed.add_explanation(session, audited, position=position, claims=claims)
        seed.add_explanation(session, audited, request_id="silent")

    summary = client.get("/v1/requests/chat-1", headers=admin).json()["captures"][0]["summary"]

    assert summary["text"] == f"about {seed.SECRET_AREA} (2 of 3 readings)"
    assert (summary["area"], summary["readings_naming_it"], summary["readings"]) == (seed.SECRET_AREA, 2, 3)
    assert summary["area_probability"] == pytest.approx(1.6 / 3)
    assert summary["kinds"] == [
        {"kind": "self-harm", "mean_score": pytest.approx(0.4), "max_score": 0.6, "readings": 2}
    ]
    assert client.get("/v1/requests/silent", headers=admin).json()["captures"][0]["summary"] is None


@pytest.mark.parametrize("second", [uuid.UUID(int=2), None])
def test_captures_that_share_a_request_id_are_told_apart(
    client: TestClient, sessions: Sessions, admin: Headers, second: uuid.UUID | None
) -> None:
    later = seed.START + dt.timedelta(seconds=5)
    with sessions.begin() as session:
        audited = seed.add_model(session)
        for position in range(2):
            seed.add_explanation(session, audited, position=position, claims=seed.CLAIMS)
        seed.add_explanation(session, audited, position=0, capture_id=second, captured_at=later)
        seed.add_flag(session, audited)

    report = client.get("/v1/requests/chat-1", headers=admin).json()

    assert report["captures_total"] == 2
    newest, oldest = report["captures"]
    assert newest["capture_id"] == (second and str(second))
    assert (len(newest["samples"]), len(newest["explanations"]), len(newest["flags"])) == (1, 1, 0)
    assert (len(oldest["samples"]), len(oldest["explanations"]), len(oldest["flags"])) == (2, 2, 1)
    assert newest["summary"] is None
    assert oldest["summary"]["readings"] == 2
    assert newest["coverage"]["positions_sampled"] == 1


def test_an_unknown_request_is_not_called_clean(client: TestClient, admin: Headers) -> None:
    answer = client.get("/v1/requests/nobody-knows", headers=admin)

    assert answer.status_code == 404
    assert "not sampled" in answer.json()["detail"]
    assert "does not say that it was clean" in answer.json()["detail"]


def test_a_request_with_too_many_samples_says_that_it_is_cut(sessions: Sessions) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        for position in range(5):
            seed.add_explanation(session, audited, position=position)

    with sessions() as session:
        view = requests.get_request(session, "chat-1", requests.Limits(captures=20, samples=3))

    assert view is not None
    (found,) = view.captures.items
    assert (found.capture.samples_total, len(found.samples), len(found.explanations)) == (5, 3, 3)


def test_a_page_of_captures_says_how_many_there_are(sessions: Sessions) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        for number in range(5):
            later = seed.START + dt.timedelta(seconds=number)
            seed.add_explanation(session, audited, capture_id=uuid.UUID(int=number), captured_at=later)

    with sessions() as session:
        view = requests.get_request(session, "chat-1", requests.Limits(captures=2, samples=3))

    assert view is not None
    assert view.captures_total == 5
    assert [found.capture.capture_id for found in view.captures.items] == [
        uuid.UUID(int=4),
        uuid.UUID(int=3),
    ]


def test_an_id_without_a_character_or_longer_than_a_url_is_refused(
    client: TestClient, admin: Headers
) -> None:
    for path in ("/v1/requests/", "/v1/requests/" + "x" * 16_385):
        answer = client.get(path, headers=admin)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"] == "request_id"


def _stored_under(session: Session, audited: seed.Audited, external: str, number: int) -> uuid.UUID:
    """Store a capture as the plugin names it for what vLLM was given; return its identity."""
    likeliest, *others = forms(external)
    capture_id, at = uuid.UUID(int=number), seed.START + dt.timedelta(seconds=number)
    named: dict[str, Any] = {"request_id": likeliest, "capture_id": capture_id, "captured_at": at}
    seed.add_explanation(session, audited, request_names=others, **named)
    seed.add_flag(session, audited, **named)
    return capture_id


UNUSUAL = ["x" * 5_000, "a\x00b", "a\nb\r\n", "Ünïcode-日本 / ?#%", "../flags", "a>; rel=b"]


ADDITIONS = [
    "{}",  # nothing: Dynamo's engine
    "chatcmpl-{}",
    "chatcmpl-{}_1",  # in a batch of chats
    "2_chatcmpl-{}",  # of n > 1
    "1_cmpl-{}-3",
    "{}_0",  # at /v1/responses
    "generate-tokens-{}",
]


@pytest.mark.parametrize("client_id", ["X", "resp_1f", *UNUSUAL])
def test_a_request_is_found_by_what_its_client_sent_whatever_vllm_added(
    client: TestClient, sessions: Sessions, admin: Headers, client_id: str
) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        _stored_under(session, audited, "chatcmpl-another", 99)
        mine = [
            str(_stored_under(session, audited, added.replace("{}", client_id), number))
            for number, added in enumerate(ADDITIONS)
        ]

    report = client.get(f"/v1/requests/{quote(client_id, safe='')}", headers=admin).json()
    listed = [
        client.get(f"/v1/{listing}", params={"request": client_id}, headers=admin).json()["items"]
        for listing in ("explanations", "flags")
    ]

    assert report["request_id"] == client_id
    assert [found["capture_id"] for found in report["captures"]] == mine[::-1]
    for capture in report["captures"]:
        assert [len(capture[part]) for part in ("samples", "explanations", "flags")] == [1, 1, 1]
    assert [{found["capture_id"] for found in items} for items in listed] == [set(mine)] * 2
    assert [len(items) for items in listed] == [len(mine)] * 2


@pytest.mark.parametrize("client_id", ["X", *UNUSUAL])
def test_no_later_request_pushes_a_capture_out_of_an_ids_pages(
    client: TestClient, sessions: Sessions, admin: Headers, client_id: str
) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        first = _stored_under(session, audited, f"chatcmpl-{client_id}", 1)
        others = [_stored_under(session, audited, f"{client_id}_{n}", n) for n in range(2, 46)]

    seen, lengths = [], []
    answer = client.get(f"/v1/requests/{quote(client_id, safe='')}", headers=admin)
    while True:
        report = answer.json()
        assert report["captures_total"] == 45
        seen += [found["capture_id"] for found in report["captures"]]
        lengths.append(len(report["captures"]))
        if "next" not in answer.links:
            assert report["next_cursor"] is None
            break
        answer = client.get(answer.links["next"]["url"], headers=admin)

    assert seen == [str(capture_id) for capture_id in (*reversed(others), first)]
    assert lengths == [20, 20, 5]


def test_captures_that_are_stored_meanwhile_or_at_the_same_time_move_no_page(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    def add(number: int, seconds: int) -> str:
        capture_id, at = uuid.UUID(int=number), seed.START + dt.timedelta(seconds=seconds)
        with sessions.begin() as session:
            seed.add_explanation(session, audited, capture_id=capture_id, captured_at=at)
        return str(capture_id)

    with sessions.begin() as session:
        audited = seed.add_model(session)
    stored = [add(number, 0) for number in range(1, 5)]

    first = client.get("/v1/requests/chat-1?limit=2", headers=admin).json()
    add(9, 1)
    second = client.get(f"/v1/requests/chat-1?limit=2&cursor={first['next_cursor']}", headers=admin).json()

    seen = [found["capture_id"] for page in (first, second) for found in page["captures"]]
    assert seen == list(reversed(stored))
    assert second["next_cursor"] is None


def test_a_cursor_of_another_id_is_refused(client: TestClient, sessions: Sessions, admin: Headers) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        for number in range(2):
            _stored_under(session, audited, "X", number)
            _stored_under(session, audited, "Y", 5 + number)
    cursor = client.get("/v1/requests/X?limit=1", headers=admin).json()["next_cursor"]

    answer = client.get(f"/v1/requests/Y?limit=1&cursor={cursor}", headers=admin)

    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "foreign_cursor")


def test_an_id_that_was_stored_as_it_came_is_still_found(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    long = "x" * 1000
    with sessions.begin() as session:
        audited = seed.add_model(session)
        seed.add_explanation(session, audited, request_id=long, capture_id=None)
        seed.add_flag(session, audited, request_id=long, capture_id=None)

    (capture,) = client.get(f"/v1/requests/{long}", headers=admin).json()["captures"]

    assert (capture["capture_id"], capture["request_id"]) == (None, long)
    assert (len(capture["samples"]), len(capture["flags"])) == (1, 1)
    for listing in ("explanations", "flags"):
        found = client.get(f"/v1/{listing}", params={"request": long}, headers=admin).json()["items"]
        assert [one["request_id"] for one in found] == [long]


def test_a_page_of_many_captures_costs_as_many_queries_as_one_of_two(
    sessions: Sessions, engine: Engine
) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        for number in range(12):
            _stored_under(session, audited, "many", number)
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *heard: statements.append(heard[2]))

    def cost(captures: int) -> int:
        statements.clear()
        with sessions() as session:
            view = requests.get_request(session, "many", requests.Limits(captures=captures, samples=3))
        assert view is not None
        assert len(view.captures.items) == captures
        for one in view.captures.items:
            assert len(one.samples) == len(one.explanations) == len(one.flags) == 1
        return len(statements)

    assert cost(2) == cost(11)
    assert cost(12) == cost(11) - 1  # all are on the page: nothing is left to count


def test_ids_names_and_traces_are_found_however_old_their_days_are(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    now, trace = dt.datetime.now(dt.UTC), "ab" * 16
    ages = [-1, 0, 7, 20, 35, 400]  # days, of each step in which days are looked into and between two
    with sessions.begin() as session:
        audited = seed.add_model(session)
        stored = [
            seed.add_explanation(
                session,
                audited,
                request_id="often",
                capture_id=uuid.UUID(int=age + 2),
                captured_at=now - dt.timedelta(days=age),
                trace_id=trace,
            ).id
            for age in ages
        ]
    captures = [str(uuid.UUID(int=age + 2)) for age in ages]

    def walk(path: str) -> list[Any]:
        found, url = [], f"{path}limit=4"
        while True:
            answer = client.get(url, headers=admin)
            found.append(answer.json())
            if "next" not in answer.links:
                return found
            url = answer.links["next"]["url"]

    for path in ("/v1/requests/often?", f"/v1/traces/{trace}?"):
        pages = walk(path)
        assert [page["captures_total"] for page in pages] == [6, 6]
        assert [one["capture_id"] for page in pages for one in page["captures"]] == captures
    traced = client.get("/v1/requests", params={"trace_id": trace}, headers=admin).json()
    assert [one["capture_id"] for one in traced["requests"]] == captures[::-1]
    listed = [one["id"] for page in walk("/v1/explanations?request=often&") for one in page["items"]]
    assert listed == [str(identity) for identity in stored]
    for capture, identity in zip(captures, listed, strict=True):
        alone = client.get(f"/v1/requests/often?capture_id={capture}", headers=admin).json()
        assert [one["capture_id"] for one in alone["captures"]] == [capture]
        positions = client.get(f"/v1/captures/{capture}/positions?model=tiny", headers=admin).json()
        assert [one["readings"][0]["explanation_id"] for one in positions["items"]] == [identity]
        assert client.get(f"/v1/explanations/{identity}", headers=admin).json()["id"] == identity


def test_an_id_of_very_many_captures_costs_no_more_than_is_counted(sessions: Sessions) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        for number in range(6):
            _stored_under(session, audited, "X", number)

    with sessions() as session:
        view = requests.get_request(session, "X", requests.Limits(captures=5, samples=3, counted=4))

    assert view is not None
    assert (view.captures_total, len(view.captures.items)) == (4, 5)


TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def test_samples_and_explanations_tell_their_trace_or_that_there_is_none(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        seed.add_explanation(session, audited, request_id="traced", trace_id=TRACE_ID, span_id=SPAN_ID)
        seed.add_explanation(session, audited, request_id="untraced")

    for request_id, ids in (("traced", (TRACE_ID, SPAN_ID)), ("untraced", (None, None))):
        report = client.get(f"/v1/requests/{request_id}", headers=admin).json()
        (capture,) = report["captures"]
        for found in (*capture["samples"], *capture["explanations"]):
            assert (found["trace_id"], found["span_id"]) == ids


def test_the_halves_of_a_split_request_are_captures_that_tell_their_role(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        for position, role in enumerate(("prefill", "decode", None)):
            seed.add_explanation(
                *(session, audited),
                capture_id=uuid.uuid4(),
                position=position,
                captured_at=seed.START + dt.timedelta(seconds=position),
                trace_id=TRACE_ID,
                role=role,
            )

    report = client.get("/v1/requests/chat-1", headers=admin).json()
    traced = client.get("/v1/requests", params={"trace_id": TRACE_ID}, headers=admin).json()

    assert [capture["role"] for capture in report["captures"]] == [None, "decode", "prefill"]
    for capture in report["captures"]:
        assert {found["role"] for found in capture["samples"] + capture["explanations"]} == {
            capture["role"]
        }
    assert [found["role"] for found in traced["requests"]] == ["prefill", "decode", None]


def test_requests_are_found_by_their_trace(client: TestClient, sessions: Sessions, admin: Headers) -> None:
    later = seed.START + dt.timedelta(seconds=5)
    with sessions.begin() as session:
        one, other = seed.add_model(session), seed.add_model(session, "other")
        traced: dict[str, Any] = {"trace_id": TRACE_ID, "span_id": SPAN_ID}
        seed.add_explanation(session, one, request_id="b", captured_at=later, **traced)
        seed.add_explanation(session, one, request_id="a", position=0, **traced)
        seed.add_explanation(
            session, one, request_id="a", position=1, captured_at=later, trace_id=TRACE_ID, span_id="c" * 16
        )
        seed.add_explanation(session, other, request_id="a", captured_at=later, **traced)
        seed.add_explanation(session, one, request_id="elsewhere", trace_id="d" * 32, span_id=SPAN_ID)
        seed.add_explanation(session, one, request_id="untraced")

    answer = client.get("/v1/requests", params={"trace_id": TRACE_ID}, headers=admin).json()

    assert answer["requests_total"] == 3
    found = [(one["request_id"], one["model"], one["samples"]) for one in answer["requests"]]
    assert found == [("a", "tiny", 2), ("a", "other", 1), ("b", "tiny", 1)]
    first = answer["requests"][0]
    assert first["span_ids"] == [SPAN_ID, "c" * 16]
    assert first["first_captured_at"] == "2026-11-23T05:00:00Z"
    assert first["last_captured_at"] == "2026-11-23T05:00:05Z"


def test_one_call_tells_everything_of_a_trace(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    later = seed.START + dt.timedelta(seconds=5)
    with sessions.begin() as session:
        one, other = seed.add_model(session), seed.add_model(session, "other")
        traced: dict[str, Any] = {"trace_id": TRACE_ID, "span_id": SPAN_ID}
        seed.add_explanation(session, one, request_id="b", captured_at=later, concept="deception", **traced)
        seed.add_explanation(session, one, request_id="a", position=0, **traced)
        seed.add_explanation(session, one, request_id="a", position=1, **traced)
        seed.add_explanation(session, other, request_id="a", captured_at=later, **traced)
        seed.add_explanation(session, one, request_id="elsewhere", trace_id="d" * 32)
        seed.add_explanation(session, one, request_id="untraced")
    path, found, cursor = f"/v1/traces/{TRACE_ID}", [], None

    while True:
        params = {"limit": 2} | ({} if cursor is None else {"cursor": cursor})
        answer = client.get(path, params=params, headers=admin).json()
        assert (answer["trace_id"], answer["captures_total"], answer["truncated"]) == (TRACE_ID, 3, False)
        found += answer["captures"]
        cursor = answer["next_cursor"]
        if cursor is None:
            break

    told = [(one["request_id"], one["model"], len(one["explanations"])) for one in found]
    assert sorted(told) == [("a", "other", 1), ("a", "tiny", 2), ("b", "tiny", 1)]
    assert told[-1] == ("a", "tiny", 2)  # the oldest
    assert {one["text"] for capture in found for one in capture["explanations"]} == {seed.SECRET_TEXT}
    missing = client.get(f"/v1/traces/{'e' * 32}", headers=admin)
    assert (missing.status_code, missing.json()["code"]) == (404, "unknown_trace")
    assert client.get("/v1/traces/x", headers=admin).status_code == 422


def test_a_trace_that_nobody_named_has_no_requests_and_a_malformed_one_is_refused(
    client: TestClient, admin: Headers
) -> None:
    nothing = client.get("/v1/requests", params={"trace_id": TRACE_ID}, headers=admin)
    assert (nothing.status_code, nothing.json()) == (
        200,
        {"requests": [], "requests_total": 0, "truncated": False},
    )

    for params in ({}, {"trace_id": ""}, {"trace_id": TRACE_ID.upper()}, {"trace_id": f"{TRACE_ID}\n"}):
        answer = client.get("/v1/requests", params=params, headers=admin)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"] == "trace_id"


def test_a_trace_with_too_many_requests_says_how_many(sessions: Sessions) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        for number in range(5):
            seed.add_explanation(session, audited, request_id=f"r{number}", trace_id=TRACE_ID)

    with sessions() as session:
        found = requests.list_of_trace(session, TRACE_ID, 3)

    assert (found.total, [one.request_id for one in found.requests]) == (5, ["r0", "r1", "r2"])
    assert not found.truncated


def test_a_trace_of_very_many_samples_is_read_up_to_a_bound_and_says_so(sessions: Sessions) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        for number in range(5):
            at = seed.START + dt.timedelta(seconds=number)
            seed.add_explanation(
                session, audited, request_id=f"r{number}", trace_id=TRACE_ID, captured_at=at
            )

    with sessions() as session:
        found = requests.list_of_trace(session, TRACE_ID, limit=2, samples=3)

    assert [one.request_id for one in found.requests] == ["r0", "r1"]
    assert found.truncated


def test_the_positions_of_a_capture_are_paged_in_order(
    client: TestClient, sessions: sessionmaker[Session], admin: Headers
) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        for position in (9, 2, 4, 7, 11):
            concept = "deception" if position == 4 else None
            seed.add_explanation(session, audited, position=position, concept=concept)
        capture = seed.capture_of(audited, "chat-1")

    path, found, after = f"/v1/captures/{capture}/positions?model=tiny&limit=2", [], ""
    while True:
        page = client.get(f"{path}{after}", headers=admin).json()
        found += page["items"]
        if page["next_after"] is None:
            break
        after = f"&after={page['next_after']}"

    assert [one["position"] for one in found] == [2, 4, 7, 9, 11]
    assert page["layers"] == [{"layer": 20, "positions": 5}]
    [reading] = found[1]["readings"]
    assert reading["concepts"] == ["deception"]
    assert (reading["verified"], reading["verified_above"], reading["fve_beyond_token"]) == (
        True,
        0.1,
        0.31,
    )
    explanation = client.get(f"/v1/explanations/{reading['explanation_id']}", headers=admin).json()
    assert explanation["position"] == 4
    assert explanation["fidelity"]["verified_above"] == reading["verified_above"]


def test_positions_say_what_is_not_there(
    client: TestClient, sessions: sessionmaker[Session], admin: Headers
) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        seed.add_explanation(session, audited)
        capture = seed.capture_of(audited, "chat-1")

    unknown = client.get(f"/v1/captures/{uuid.uuid4()}/positions?model=tiny", headers=admin)
    of_no_model = client.get(f"/v1/captures/{capture}/positions?model=other", headers=admin)
    unread = client.get(f"/v1/captures/{capture}/positions?model=tiny&layer=21", headers=admin).json()

    assert (unknown.status_code, of_no_model.status_code) == (404, 404)
    assert unknown.json()["code"] == "unknown_capture"
    assert "does not say that it was clean" in unknown.json()["detail"]
    assert (unread["layer"], unread["items"], unread["layers"][0]["layer"]) == (21, [], 20)


def test_one_capture_is_asked_for_without_its_rows(
    client: TestClient, sessions: sessionmaker[Session], admin: Headers
) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        for capture in (uuid.UUID(int=1), uuid.UUID(int=2)):
            seed.add_explanation(session, audited, capture_id=capture)

    wanted = {"capture_id": str(uuid.UUID(int=1)), "rows": "false"}
    report = client.get("/v1/requests/chat-1", params=wanted, headers=admin).json()

    assert report["captures_total"] == 2
    [capture] = report["captures"]
    assert capture["capture_id"] == str(uuid.UUID(int=1))
    assert (capture["samples"], capture["explanations"]) == ([], [])
    assert capture["coverage"]["positions_explained"] == {"numerator": 1, "denominator": 1, "value": 1.0}


def test_figures_are_the_same_without_rows_and_no_text_is_read_for_them(
    client: TestClient, sessions: sessionmaker[Session], admin: Headers
) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        seed.add_explanation(session, audited, capture_id=uuid.UUID(int=1))
        seed.add_explanation(session, audited, capture_id=None)
    stated = admin | {"Subtext-Purpose": "debugging"}

    def ask(**wanted: str) -> list[dict[str, Any]]:
        answer = client.get("/v1/requests/chat-1", params=wanted, headers=stated).json()
        return list(answer["captures"])

    whole, figures = ask(), ask(rows="false", summary="false")

    assert [one["coverage"] for one in figures] == [one["coverage"] for one in whole]
    assert {one["coverage"]["positions_explained"]["value"] for one in figures} == {1.0}
    assert {one["summary"] for one in figures} == {None}
    with sessions() as session:
        texts_read = select(AccessEntry).where(AccessEntry.action == Action.READ_TEXT)
        assert len(session.scalars(texts_read).all()) == 1
