"""A request's page: by keyboard alone, its selection in the address, honest about what is missing."""

import re
from typing import Literal

import pytest
from playwright.sync_api import Page, expect

from tests.console.planted import Spoken, add_alerted, add_request
from tests.integration.service import seed
from tests.support.console import NARROW, WIDE, Console, axe, wait_until_it_fits


def opened(console: Console, path: str = "requests/chat-1", **how: object) -> Page:
    with console.sessions.begin() as session:
        add_alerted(session)
    return console.open(path, **how)  # type: ignore[arg-type]  # passed on as it came


def whole(page: Page) -> None:
    """Wait until all of the alerted request is there: what comes above the strip moves it."""
    expect(page.get_by_text("50 of 50 sampled positions", exact=True)).to_be_visible()
    expect(page.get_by_role("link", name="Review the incident")).to_be_visible()
    said = page.get_by_role("region", name="What the readings say together")
    expect(said).to_contain_text("about medicine")
    expect(page.get_by_text(re.compile("^Loading "))).to_have_count(0)


def test_who_is_woken_sees_what_was_found_how_sure_it_is_and_what_was_not_seen(console: Console) -> None:
    page = opened(console)

    found = page.get_by_role("region", name="What was found")
    expect(found).to_contain_text("critical")
    expect(found).to_contain_text("self-harm")
    expect(found).to_contain_text("3 of 14 verified positions matched; 2 are required")
    expect(found).to_contain_text("Wrong on 0.80% of 944 benign requests, at most 1.5% with 95% confidence")
    expect(found.get_by_text("calibrated", exact=True)).to_have_count(1)
    expect(found.get_by_text("not calibrated")).to_have_count(1)
    expect(found).to_contain_text("A lead: how often it is wrong was not measured")
    expect(found).to_contain_text("1 of the 3 requests of its window are discoveries")
    incident = found.get_by_role("link", name="Review the incident")
    expect(incident).to_have_attribute("href", re.compile(r"^/console/review/[0-9a-f-]{36}$"))
    said = page.get_by_role("region", name="What the readings say together")
    expect(said).to_contain_text("hypothesis")
    expect(said).to_contain_text("about medicine")
    looked = page.get_by_role("region", name="What was looked at")
    expect(looked).to_contain_text("50 of 60 positions up to the last one sampled")
    expect(looked).to_contain_text("49 of 50 sampled")
    expect(looked).to_contain_text("10 positions between these")
    expect(looked).to_contain_text("prefix cache")
    expect(page.get_by_role("listbox", name="50 sampled positions, in order")).to_be_visible()


def test_the_keyboard_alone_reads_the_tokens(console: Console) -> None:
    page = opened(console)
    expect(page.get_by_role("listbox").get_by_role("option").first).to_be_visible()
    selected = page.locator("[role=option][aria-selected=true]")

    page.keyboard.press("j")
    expect(selected).to_have_attribute("aria-label", re.compile("^position 4, "))
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    expect(selected).to_have_attribute("aria-label", re.compile("^position 5, "))
    page.keyboard.press("Enter")

    drawer = page.get_by_role("complementary", name="Reading")
    expect(drawer.get_by_role("heading", name="Position 5")).to_be_focused()
    expect(drawer).to_contain_text("an answer about medicine, reading 5")
    expect(drawer).to_contain_text("unverified")
    page.keyboard.press("j")
    expect(drawer.get_by_role("heading", level=2)).to_contain_text("Position 6")
    expect(page).to_have_url(re.compile(r"position=6\b"))
    page.keyboard.press("Tab")
    expect(drawer.get_by_role("button", name="Previous sampled position")).to_be_focused()
    page.keyboard.press("Escape")
    expect(drawer).to_have_count(0)
    expect(page.get_by_role("listbox")).to_be_focused()
    page.keyboard.press("End")
    expect(selected).to_have_attribute("aria-label", re.compile("^position 59, "))
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    expect(selected).not_to_have_attribute("aria-label", re.compile("^position 4, "))


def test_the_lens_goes_round_and_its_value_is_told_in_words(console: Console) -> None:
    page = opened(console)
    lens = page.get_by_role("combobox", name="Lens")
    expect(lens).to_have_value("concept")
    twelve = page.get_by_role("listbox").get_by_role("option", name=re.compile("^position 12,"))
    expect(twelve).to_have_attribute("aria-label", re.compile("matched self-harm"))

    page.keyboard.press("l")
    expect(lens).to_have_value("surprise")
    expect(page.get_by_text("Next-token surprise: not available.")).to_be_visible()
    page.keyboard.press("l")
    expect(lens).to_have_value("fidelity")
    fidelity = re.compile(r"FVE beyond the token 0\.60, threshold 0\.10")
    expect(twelve).to_have_attribute("aria-label", fidelity)
    page.keyboard.press("l")
    expect(twelve).to_have_attribute("aria-label", re.compile("anomaly score"))
    expect(page).to_have_url(re.compile("lens=anomaly"))


def test_what_was_not_sampled_is_hatched_and_told_by_number(console: Console) -> None:
    page = opened(console)
    gaps = page.locator(".strip .gap")
    expect(gaps).to_have_text(["4 not sampled", "2 not sampled", "3 not sampled", "1 not sampled"])
    behind = page.get_by_role("listbox").get_by_role(
        "option", name=re.compile("^position 23,.*3 before it not sampled")
    )
    expect(behind).to_be_visible()
    unread = page.get_by_role("listbox").get_by_role("option", name=re.compile("^position 29,.*no reading"))
    unread.click()
    expect(page.get_by_role("complementary", name="Reading")).to_contain_text("the decoder has not read it")
    expect(
        page.get_by_role("listbox").get_by_role("option", name=re.compile("^position 8, token ⇥"))
    ).to_have_text("⇥")


def test_the_address_holds_the_selection(console: Console) -> None:
    page = opened(console, "requests/chat-1?position=13&lens=fidelity")
    drawer = page.get_by_role("complementary", name="Reading")
    expect(drawer.get_by_role("heading", level=2)).to_contain_text("Position 13")
    expect(page.get_by_role("combobox", name="Lens")).to_have_value("fidelity")
    expect(page).to_have_url(re.compile(r"capture=[0-9a-f-]{36}.*position=13.*lens=fidelity"))
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy link").click()
    expect(page.get_by_text("Copied")).to_be_visible()
    link = page.evaluate("navigator.clipboard.readText()")

    page.goto(f"{console.url}/console/nowhere")
    page.goto(link)

    expect(drawer.get_by_role("heading", level=2)).to_contain_text("Position 13")


def test_the_drawer_says_how_far_a_reading_can_be_trusted(console: Console) -> None:
    page = opened(console, "requests/chat-1?position=13")
    drawer = page.get_by_role("complementary", name="Reading")

    expect(drawer.get_by_role("img", name=re.compile(r"^cosine 0\.87; FVE .* against"))).to_be_visible()
    for told in (
        "hypothesis",
        "self-harm at 2 of 6 sampled neighbours with a reading",
        "by version 2",
        "of 512 benign activations",
        "tiny-l20",
        "0.2500 that it was sampled at all",
        "another came",
        "A proof: not available.",
    ):
        expect(drawer).to_contain_text(told)


def test_pointing_previews_and_clicking_locks(console: Console) -> None:
    page = opened(console)
    whole(page)
    page.get_by_role("listbox").get_by_role("option", name=re.compile("^position 16,")).hover()
    preview = page.locator(".preview")
    expect(preview).to_contain_text("an answer about medicine, reading 16")
    expect(page.get_by_role("complementary", name="Reading")).to_have_count(0)

    page.get_by_role("listbox").get_by_role("option", name=re.compile("^position 17,")).click()

    expect(page.get_by_role("complementary", name="Reading")).to_contain_text("reading 17")
    page.get_by_role("button", name="12", exact=True).click()
    expect(page.get_by_role("heading", name="Position 12")).to_be_focused()


def test_text_is_withheld_until_a_purpose_is_stated(console: Console) -> None:
    page = opened(console, "requests/chat-1?position=13", purpose=None)
    drawer = page.get_by_role("complementary", name="Reading")
    expect(drawer.get_by_role("button", name="State a purpose to read the text")).to_be_visible()
    expect(
        page.get_by_role("listbox").get_by_role("option", name=re.compile("^position 13, token withheld"))
    ).to_have_text("#13")
    assert "about medicine" not in page.content()

    drawer.get_by_role("button", name="State a purpose").click()
    page.get_by_role("button", name="Show text").click()

    expect(drawer).to_contain_text("an answer about medicine, reading 13")


def test_who_lacks_the_scope_is_told_how_to_get_it(console: Console) -> None:
    page = opened(
        console,
        "requests/chat-1?position=13",
        scopes=("explanations:read", "flags:read"),
        purpose=None,
    )
    drawer = page.get_by_role("complementary", name="Reading")
    expect(drawer).to_contain_text("lacks the scope explanations:read_text")
    expect(drawer).to_contain_text("lacks the scope audit:read")
    assert "about medicine" not in page.content()


def test_what_is_not_stored_is_never_called_clean(console: Console) -> None:
    page = console.open("requests/never-seen")
    expect(page.get_by_text("Nothing is stored under this id.")).to_be_visible()
    expect(page.get_by_text("This does not say that it was clean.")).to_be_visible()
    expect(page.get_by_role("button", name="Look again")).to_be_visible()


def test_a_request_without_a_flag_is_not_called_clean(console: Console) -> None:
    with console.sessions.begin() as session:
        add_request(session, seed.add_model(session), [Spoken(0), Spoken(1)])
    page = console.open("requests/chat-1")
    expect(page.get_by_role("region", name="What was found")).to_contain_text("does not mean clean")
    expect(page.get_by_role("combobox", name="Lens")).to_have_value("fidelity")


def test_what_was_stored_before_captures_is_shown_too(console: Console) -> None:
    with console.sessions.begin() as session:
        audited = seed.add_model(session)
        for position in (2, 2, 5):
            seed.add_explanation(session, audited, request_id="old", capture_id=None, position=position)
    page = console.open("requests/old")
    expect(page.get_by_role("listbox").get_by_role("option")).to_have_count(3)
    expect(page.get_by_text("1 position came more than once")).to_be_visible()


@pytest.mark.parametrize(("size", "scheme"), [(WIDE, "light"), (NARROW, "dark")], ids=["wide", "narrow"])
def test_every_lens_is_accessible(
    console: Console, size: tuple[int, int], scheme: Literal["light", "dark"]
) -> None:
    page = opened(console, "requests/chat-1?position=13", size=size, scheme=scheme)
    drawer = page.get_by_role("complementary", name="Reading")
    expect(drawer).to_contain_text("reading 13")
    expect(drawer).to_contain_text("A proof: not available.")
    whole(page)

    assert axe(page) == []
    wait_until_it_fits(page)
    if size == NARROW:
        below = "innerHeight - document.querySelector('.drawer').getBoundingClientRect().bottom"
        page.wait_for_function(f"Math.abs({below}) <= 1")
    page.keyboard.press("Escape")
    expect(drawer).to_have_count(0)
    lens = page.get_by_role("combobox", name="Lens")
    expect(lens).to_have_value("concept")
    for name in ("surprise", "fidelity", "anomaly", "concept"):
        page.keyboard.press("l")
        expect(lens).to_have_value(name)
        assert axe(page) == []


FRAMES = """async () => {
  const strip = document.querySelector('.strip');
  const times = [];
  let last = performance.now();
  while (times.length < 180) {
    await new Promise(requestAnimationFrame);
    const now = performance.now();
    times.push(now - last);
    last = now;
    strip.scrollTop += 40;
    if (strip.scrollTop + strip.clientHeight >= strip.scrollHeight - 1) strip.scrollTop = 0;
  }
  return times;
}"""


def test_a_request_of_eight_thousand_tokens_scrolls(console: Console) -> None:
    with console.sessions.begin() as session:
        audited = seed.add_model(session)
        spoken = [
            Spoken(position, f" tok{position % 97}", "a reading", concepts=["x"] * (position % 9 == 0))
            for position in range(8000)
        ]
        add_request(session, audited, spoken)
    page = console.open("requests/chat-1")
    expect(page.get_by_text("8,000 of 8,000 sampled positions", exact=True)).to_be_visible(timeout=60_000)
    assert page.locator(".strip .cell").count() < 1500

    figures = page.context.new_cdp_session(page)
    figures.send("Performance.enable", {"timeDomain": "threadTicks"})

    def busy_seconds() -> float:
        told = figures.send("Performance.getMetrics")["metrics"]
        return float(next(one["value"] for one in told if one["name"] == "TaskDuration"))

    before = busy_seconds()
    frames = page.evaluate(FRAMES)
    busy_ms = 1000 * (busy_seconds() - before) / len(frames)

    # By the processor's time of the page's thread, and as many frames on every machine, as others may keep
    # it busy: 50 frames a second.
    assert busy_ms <= 20, (
        f"{busy_ms:.1f} ms a frame; {sum(one > 20.5 for one in frames)} of {len(frames)} long"
    )
    page.get_by_role("listbox").focus()
    page.keyboard.press("End")
    expect(
        page.get_by_role("listbox").get_by_role("option", name=re.compile("^position 7999,"))
    ).to_be_visible()
