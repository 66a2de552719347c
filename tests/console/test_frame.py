"""Signing in, the purpose, the theme, and the policy under which the page runs."""

import re

from playwright.sync_api import expect
from sqlalchemy import func, update

from deploy.checks.console import DIST, SCRIPT_AT_MOST_BYTES, script_bytes
from service.store.tables import ApiKey
from tests.support.console import Console, get


def test_a_key_signs_in_and_out(console: Console) -> None:
    page = console.open(scopes=())
    expect(page.get_by_role("heading", name="Subtext")).to_be_visible()
    page.get_by_label("API key").fill("stx_wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_be_visible()

    page.get_by_label("API key").fill(console.key("admin", name="night shift"))
    page.keyboard.press("Enter")

    expect(page.get_by_text("night shift")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("API key")).to_be_visible()


def test_a_key_in_the_address_signs_in_and_leaves_it(console: Console) -> None:
    page = console.open(f"#key={console.key('admin', name='demo')}", scopes=())

    expect(page.get_by_text("demo", exact=True)).to_be_visible()
    expect(page).not_to_have_url(re.compile("key="))
    assert "key=" not in page.evaluate("JSON.stringify([localStorage, sessionStorage])")


def test_a_key_in_an_address_takes_nobodys_session_over(console: Console) -> None:
    page = console.open(f"#key={console.key('admin', name='stranger')}", name="night shift")

    expect(page.get_by_text("night shift")).to_be_visible()
    expect(page).not_to_have_url(re.compile("key="))


def test_nothing_stays_of_who_was_signed_in_before(console: Console) -> None:
    page = console.open(purpose=None, name="night shift")
    page.get_by_role("button", name="Text withheld").click()
    page.get_by_role("button", name="Show text").click()
    expect(page.get_by_role("button", name="Purpose: Incident response")).to_be_visible()
    with console.sessions.begin() as session:
        session.execute(update(ApiKey).values(revoked_at=func.now()))

    page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")

    expect(page.get_by_label("API key")).to_be_visible()
    page.wait_for_function("sessionStorage.length === 0")
    page.get_by_label("API key").fill(console.key("admin", name="day shift"))
    page.keyboard.press("Enter")
    expect(page.get_by_text("day shift")).to_be_visible()
    expect(page.get_by_role("button", name="Text withheld")).to_be_visible()


def test_when_another_tab_signs_somebody_else_in_his_purpose_is_asked_for(console: Console) -> None:
    page = console.open(purpose=None, name="night shift")
    page.get_by_role("button", name="Text withheld").click()
    page.get_by_role("button", name="Show text").click()
    expect(page.get_by_role("button", name="Purpose: Incident response")).to_be_visible()
    other = {"Authorization": f"Bearer {console.key('admin', name='day shift')}"}
    signed_in = page.context.request.post(
        f"{console.url}/auth/key", headers=other | {"Sec-Fetch-Site": "same-origin"}
    )
    assert signed_in.ok

    page.evaluate("window.dispatchEvent(new Event('visibilitychange'))")

    expect(page.get_by_text("day shift")).to_be_visible()
    expect(page.get_by_role("button", name="Text withheld")).to_be_visible()


def test_a_purpose_is_asked_for_and_sent_from_then_on(console: Console) -> None:
    page = console.open(purpose=None)
    page.get_by_role("button", name="Text withheld").click()
    page.get_by_label("Purpose").select_option("audit")
    page.get_by_label("Note").fill("naïve")
    expect(page.get_by_role("alert")).to_contain_text("ASCII")
    page.get_by_label("Note").fill("case 7")
    # What the page asked for before may be under way still.
    with page.expect_request(lambda asked: asked.headers.get("subtext-purpose") == "audit; case 7"):
        page.get_by_role("button", name="Show text").click()

    expect(page.get_by_role("button", name="Purpose: Audit")).to_be_visible()


def test_who_may_not_read_text_is_told_so(console: Console) -> None:
    page = console.open(scopes=("explanations:read",), purpose=None)
    expect(page.get_by_text("no right to read text")).to_be_visible()


def test_the_page_runs_under_a_strict_policy(console: Console) -> None:
    answer = get(f"{console.url}/console/anything/below")
    policy = answer.headers["content-security-policy"]

    assert answer.status_code == 200
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "<script>" not in answer.text
    for asset in re.findall(r'(?:src|href)="\./(assets/[^"]+)"', answer.text):
        served = get(f"{console.url}/console/{asset}")
        assert served.status_code == 200
        assert "immutable" in served.headers["cache-control"]
        assert served.headers["content-encoding"] == "gzip"
    assert get(f"{console.url}/console/assets/none.js").status_code == 404


def test_shortcuts_can_be_switched_off(console: Console) -> None:
    page = console.open("nowhere")
    expect(page.get_by_role("heading", name="No such page")).to_be_visible()
    page.keyboard.press("?")
    page.get_by_label("single-key shortcuts").uncheck()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)

    page.keyboard.press("?")

    expect(page.get_by_role("dialog")).to_have_count(0)


def test_all_script_together_stays_within_what_the_console_may_load() -> None:
    assert 0 < script_bytes(DIST) <= SCRIPT_AT_MOST_BYTES
