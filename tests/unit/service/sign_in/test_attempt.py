import datetime as dt

import pytest

from service.sign_in.attempt import Attempt
from service.sign_in.grants import Grant, choose, groups_in
from service.sign_in.origin import local_path

NOW = dt.datetime(2026, 11, 28, 17, tzinfo=dt.UTC)


def test_a_login_comes_back_as_it_was_for_ten_minutes() -> None:
    attempt = Attempt.begin("/console?x=1", NOW)

    assert Attempt.read(attempt.cookie, NOW + dt.timedelta(minutes=9)) == attempt
    assert Attempt.read(attempt.cookie, NOW + dt.timedelta(minutes=11)) is None
    assert Attempt.read(attempt.cookie, NOW - dt.timedelta(minutes=1)) is None
    assert len({attempt.state, attempt.nonce, attempt.code_verifier, attempt.secret}) == 4
    assert attempt.is_answered_by(attempt.state)
    assert not Attempt.begin("/", NOW).is_answered_by(attempt.state)
    assert not attempt.is_answered_by("\u00e9")


@pytest.mark.parametrize("cookie", [None, "", "a.b.c", "a.1", ".1.Lw", "a.1.!", "a." + "9" * 400 + ".Lw"])
def test_what_is_no_login_is_none(cookie: str | None) -> None:
    assert Attempt.read(cookie, NOW) is None


def test_a_cookie_leads_to_no_other_place() -> None:
    attempt = Attempt.begin("//evil.example", NOW)

    assert Attempt.read(attempt.cookie, NOW) is None


@pytest.mark.parametrize(
    "path",
    [
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "/\t/evil.example",
        "/a\nb",
        "evil.example",
        "javascript:alert(1)",
        "",
        "/" + "a" * 2000,
        "/\u202e",
        None,
    ],
)
def test_next_is_a_path_of_this_service(path: str | None) -> None:
    assert local_path(path) is None
    assert local_path("/console/requests?id=a%2Fb") == "/console/requests?id=a%2Fb"


def test_the_first_grant_to_one_of_the_groups_holds_alone() -> None:
    grants = [
        Grant.model_validate({"group": "all", "roles": ["reader"]}),
        Grant.model_validate({"group": "chat", "roles": ["reviewer"], "models": ["chat"]}),
    ]

    assert choose(grants, ["chat", "all"]) == grants[0]
    assert choose(grants, ["chat"]) == grants[1]
    assert choose(grants, ["CHAT", "al"]) is None
    assert choose(grants, []) is None


def test_groups_are_a_list_or_one_alone_by_name_or_along_dots() -> None:
    claims = {
        "groups": ["a", 7, "b"],
        "role": "c",
        "realm_access": {"roles": ["d"]},
        "https://subtext.example/roles": ["e"],
        "count": 3,
    }

    assert groups_in(claims, "groups") == ["a", "b"]
    assert groups_in(claims, "role") == ["c"]
    assert groups_in(claims, "realm_access.roles") == ["d"]
    assert groups_in(claims, "https://subtext.example/roles") == ["e"]
    for name in ("count", "none", "role.x", "realm_access"):
        assert groups_in(claims, name) == []
