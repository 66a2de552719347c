"""One walk over every page, in every look: accessible, as wide as its screen, and honest.

A page's own tests say what it shows. What holds of all of them is checked here and nowhere else.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal, NamedTuple, TypeAlias
from urllib.parse import quote

from playwright.sync_api import Page, expect

from tests.console.planted import CONCEPT, LONG, READING, add_everything
from tests.support.console import NARROW, WIDE, Console, axe, wait_until_it_fits

# Every rule is held in each size, and those that a theme may break in each theme.
BY_THEME: Final = ("color-contrast", "link-in-text-block")
Looks: TypeAlias = tuple[tuple[tuple[int, int], Literal["light", "dark"], Sequence[str]], ...]
LOOKS: Final[Looks] = (
    (WIDE, "light", ()),
    (WIDE, "dark", BY_THEME),
    (NARROW, "dark", ()),
    (NARROW, "light", BY_THEME),
)


# What a number stands on: of how many, between what, or at most what.
BASIS: Final = re.compile(
    r"\d of \d|\[[^],]+, [^]]+\]|\bn \d|\bof [\d,]+|\bamong [\d,]+|\([\d,]+ calibration readings\)",
    re.IGNORECASE,
)
# A count of all there are, which others are shares of; and a period, which is a rule and no figure.
TOTAL: Final = re.compile(r"(.*: )?[-\u2212]?[\d,]+( \w+)?\.?")
# What is no figure: times, the place of an entry or a token, and what was chosen and not measured.
NO_FIGURE: Final = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC|^\d+\. |95% intervals?|\(95%, one-sided\)|\(one-sided 95%[^)]*\)"
    r"|95% of other vectors' (readings|texts)|\b[Pp]osition [\d,]+|^[+\u2212][\d,]+ "
    r"|[\d.]+ that it was sampled at all|The dashed line is 5%|Article \d+"
)
# Texts that hold a number, as the pages mark them, or a per cent; and the caption of a table around them.
NUMBERS_JS: Final = """() => {
  const blocks = "p, li, dt, dd, td, th, caption, figcaption, label, summary, h1, h2, h3, div, section";
  const main = document.querySelector("main");
  const found = new Set();
  for (const at of main.querySelectorAll(".number")) found.add(at.closest("td, li, p, dd") ?? at);
  const texts = document.createTreeWalker(main, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const at = texts.currentNode.parentElement;
    const isShare = /\\d *%/.test(texts.currentNode.data);
    if (isShare && !at.closest("textarea, option")) found.add(at.closest(blocks));
  }
  const captionOf = (at) => at.closest("td")?.closest("table").caption?.textContent ?? "";
  return [...found].map((at) => [at.innerText, captionOf(at)]);
}"""
# Places of a reading without hypothesis and verified, and of a concept without how far it is calibrated.
UNLABELLED_JS: Final = f"""() => {{
  const places = "li, tr, article, a, aside, .panel, .preview, [role=option], dialog";
  const wanted = [[{READING!r}, /^hypothesis$/, /^(un)?verified$/], [{CONCEPT!r}, /calibrated/]];
  const found = [];
  const texts = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {{
    for (const [text, ...labels] of wanted) {{
      if (!texts.currentNode.data.includes(text)) continue;
      const around = [];
      for (let at = texts.currentNode.parentElement; at; at = at.parentElement)
        if (at.matches(places)) around.push([...at.querySelectorAll(".badge")].map((one) => one.innerText));
      const isLabelled = (told) => labels.every((label) => told.some((one) => label.test(one)));
      if (!around.some(isLabelled)) found.push(texts.currentNode.data);
    }}
  }}
  return found;
}}"""


class Stop(NamedTuple):
    """One view of the walk: how to come to it, and what is there once it is whole."""

    name: str
    go: Callable[[Page], None]
    looks: Looks = LOOKS


def at(path: str, *whole: str) -> Callable[[Page], None]:
    """Go to an address by the frame of the page, and wait until these texts are there."""

    def go(page: Page) -> None:
        page.goto(f"{page.url.split('/console')[0]}/console/{path}")
        for text in whole:
            expect(page.locator("main").get_by_text(text).first).to_be_visible()

    return go


def unfold(path: str, *whole: str) -> Callable[[Page], None]:
    """Go to an address, and open what is folded."""

    def go(page: Page) -> None:
        at(path, *whole)(page)
        page.locator("main details").evaluate_all("all => all.forEach(one => { one.open = true })")

    return go


def open_incident(page: Page) -> None:
    at("review", "chat-1")(page)
    page.locator(".review-row").filter(has_text="chat-1").click()
    for text in ("Article 73", "15 days", READING):
        expect(page.locator("main").get_by_text(text).first).to_be_attached()


def give_verdict(page: Page) -> None:
    open_incident(page)
    page.get_by_role("button", name="Confirm…").click()
    expect(page.get_by_role("dialog")).to_be_visible()


def open_settings(page: Page) -> None:
    at("nowhere", "No such page")(page)
    page.get_by_role("button", name="Settings").click()
    expect(page.get_by_role("dialog")).to_be_visible()


def read(request_id: str, position: int, *whole: str) -> Callable[[Page], None]:
    """Go to a token of a request, unfold the page, and wait until its drawer says these texts."""

    def go(page: Page) -> None:
        path = f"requests/{quote(request_id, safe='')}?position={position}"
        unfold(path, "What was found", "What was looked at", "Sampled, layer")(page)
        drawer = page.get_by_role("complementary", name="Reading")
        for text in whole:
            expect(drawer.get_by_text(text).first).to_be_visible()

    return go


def sign_out(page: Page) -> None:
    at("nowhere", "No such page")(page)
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("API key")).to_be_visible()


WALK: Final = (
    Stop("overview", at("", "chat-2", CONCEPT, "1 of 4 tested", "66.7%")),
    Stop("search", unfold("search", "chat-2")),
    Stop("review", at("review", "chat-1")),
    Stop("incident", open_incident),
    Stop("verdict", give_verdict),
    Stop("request", at("requests/chat-1", "What was found", "What was looked at", "Review the incident")),
    Stop("verified token", read("chat-1", 0, READING, "A proof: not available.")),
    Stop("unverified token", read("chat-1", 1, READING, "A proof: not available."), LOOKS[:1]),
    Stop("calibrated concept", read(LONG, 0, READING, "A proof: not available."), LOOKS[:1]),
    Stop("token that was not read", read("chat-1", 3, "A reading: not available."), LOOKS[:1]),
    Stop("token that was not sampled", read("chat-1", 4, READING, "It was not sampled"), LOOKS[:1]),
    Stop("coverage", unfold("coverage", "300 of 1,200", "What these figures cannot see")),
    Stop("calibration", unfold("calibration", "shuffled FVE", CONCEPT)),
    Stop("keys", at("admin/keys", "test")),
    Stop("policy", at("admin/policy", "began", "decode_stride")),
    Stop("concepts", unfold("admin/concepts", "in force")),
    Stop("retention", unfold("admin/retention", "a case", "400 days", "Certificate")),
    Stop("no such page", at("nowhere", "No such page")),
    Stop("settings", open_settings),
    Stop("sign in", sign_out),
)


def walk(page: Page) -> Iterator[Stop]:
    for stop in WALK:
        stop.go(page)
        expect(page.get_by_text(re.compile("^Loading "))).to_have_count(0)
        yield stop


def baseless(page: Page) -> list[str]:
    """Return every number of the page that says neither of how many it is nor between what it lies."""
    return [
        text
        for text, caption in page.evaluate(NUMBERS_JS)
        if re.search(r"\d", told := NO_FIGURE.sub("", text).strip())
        and not BASIS.search(f"{told} {caption}")
        and not TOTAL.fullmatch(told)
    ]


def test_every_page_is_accessible_fits_in_every_look_and_is_honest(console: Console) -> None:
    with console.sessions.begin() as session:
        add_everything(session)
    page = console.open()
    faults: list[tuple[object, ...]] = []
    for name, _, looks in walk(page):
        for size, scheme, rules in looks:
            page.set_viewport_size({"width": size[0], "height": size[1]})
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            wait_until_it_fits(page)
            faults += [(name, size, scheme, found) for found in axe(page, rules)]
        page.set_viewport_size({"width": WIDE[0], "height": WIDE[1]})
        faults += [(name, "a number without what it stands on", text) for text in baseless(page)]
        faults += [(name, "a verdict without its label", text) for text in page.evaluate(UNLABELLED_JS)]

    assert faults == []


def test_pages_are_changed_by_keys_alone_and_the_focus_follows(console: Console) -> None:
    page = console.open()
    heading = page.get_by_role("heading", level=1)
    expect(heading).to_have_text("Overview")
    for name in ("Search", "Review", "Coverage", "Calibration", "Admin"):
        link = page.get_by_role("navigation", name="Pages").get_by_role("link", name=name)
        link.focus()
        expect(link).to_have_css("outline-style", "solid")
        page.keyboard.press("Enter")
        expect(heading).to_have_text("Keys" if name == "Admin" else name)
        expect(heading).to_be_focused()
    section = page.get_by_role("link", name="Policy")
    section.focus()
    page.keyboard.press("Enter")
    expect(heading).to_have_text("Policy")
    expect(heading).to_be_focused()

    settings = page.get_by_role("button", name="Settings")
    settings.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(settings).to_be_focused()

    page.reload()
    expect(heading).to_have_text("Policy")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the page")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()


def test_a_link_that_asks_for_words_without_a_time_is_searched(console: Console) -> None:
    page = console.open("search?q=aid")

    expect(page.get_by_text("Nothing was found.")).to_be_visible()
    expect(page).to_have_url(re.compile("captured_after="))
