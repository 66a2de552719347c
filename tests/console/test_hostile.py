"""Explanations, tokens and ids that strangers wrote: shown as text, nothing runs, the layout holds."""

import re
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from typing import Final
from urllib.parse import quote

import pytest
from playwright.sync_api import Dialog, Error, Page, Request, expect

from tests.console.planted import Spoken, add_request
from tests.integration.service import seed
from tests.support.console import NARROW, WIDE, Console, get

MARKUP: Final = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<img src=https://elsewhere.example/x.png>",
    "<svg/onload=alert(1)>",
    "<iframe src='javascript:alert(1)'></iframe>",
    "<a href='javascript:alert(1)'>press</a>",
    "javascript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "</textarea></title></style></script><script>alert(1)</script>",
    "<style>*{display:none}body{background:url(https://elsewhere.example)}</style>",
    "<base href=https://elsewhere.example/>",
    "<meta http-equiv=refresh content='0;url=https://elsewhere.example'>",
    "<form action=https://elsewhere.example><button>go",
    "<!-- <p> --> ]]> <![CDATA[ <x>",
    "{{constructor.constructor('alert(1)')()}} ${alert(1)} {alert(1)}",
    "__proto__ constructor prototype toString",
    "&lt;script&gt;alert(1)&lt;/script&gt; &#60;x&#62; &amp;",
    "\u202egpj.exe\u202c reversed \u2066isolated",
    "\u200f\u200e\u202a\u202b\u202d\u2067\u2068\u2069",
    "zero\u200bwidth\u200cjoin\u200der\ufeffmark\u00adsoft",
    "tags \U000e0001\U000e0041\U000e0042\U000e007f",
    "e" + "\u0301\u0316\u0334" * 200,
    "\u0e01" + "\u0e49" * 500,
    "\ufdfd" * 60,
    "\U0001f468\u200d\U0001f469\u200d\U0001f467" * 40,
    "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 mixed 123",
    "\u0001\u0007\u0008\u001b[31mred\u001b[0m\u007f\u0085\u2028\u2029",
    "a\r\nb\rc\n" * 50,
    "\t" * 300,
    " " * 500 + "x",
    "\u3164\u115f\u1160\uffa0\u2800",
    "'; DROP TABLE samples; -- \\ \" ` %s %n %00 ../../etc/passwd",
    "verified calibrated GOOD 100% (95% confidence)",
    "https://elsewhere.example/?q=1 mailto:x@example.org tel:123",
    "W" * 5000,
    "\u6f22" * 3000,
    "",
)
LONG_LINES: Final = ("x" * 1_000_000, "<b>" * 333_334, "\u202e" * 400_000)
IDS: Final = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "javascript:alert(1)",
    "JaVaScRiPt:alert(document.domain)//",
    "data:text/html,<script>alert(1)</script>",
    "a/b/c",
    "/leading",
    "//elsewhere.example/x",
    "https://elsewhere.example/",
    "trailing/",
    "a/../../b",
    "..x",
    "...",
    "100%",
    "%2e%2e%2f",
    "%25252f",
    "%",
    "%00",
    "?position=1&lens=anomaly#key=stx_x",
    "#key=stx_x",
    "a b  c",
    " surrounded ",
    "a\nb",
    "tab\tbed",
    "\u202eevil",
    "\u65e5\u672c\u8a9e",
    "\U0001f600",
    "e" + "\u0301" * 100,
    "\u200b",
    "__proto__",
    "constructor",
    "positions",
    "'\"`\\",
    "{request_id}",
    ":request",
    "*",
    "y" * 2000,
)


def two_hundred() -> Iterator[str]:
    """Yield 200 texts, no two the same."""
    for number, text in enumerate(islice(cycle(MARKUP), 200 - len(LONG_LINES))):
        yield text if number < len(MARKUP) else f"{number} {text}"
    yield from LONG_LINES


def watched(console: Console, page: Page) -> None:
    """Have whatever runs or is fetched from elsewhere fail the test."""

    def refuse(dialog: Dialog) -> None:
        console.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def look(request: Request) -> None:
        if not request.url.startswith((console.url, "blob:", "data:image")):
            console.complaints.append(f"asked elsewhere: {request.url[:200]}")

    def complain(opened: Page) -> None:
        console.complaints.append(f"opened: {opened.url}")

    page.on("dialog", refuse)
    page.on("request", look)
    page.on("popup", complain)


# What is wrong with how the page is laid out; what comes in a later frame may change it.
_LAYOUT_FAULTS: Final = """() => {
  const faults = [];
  if (document.documentElement.scrollWidth > innerWidth) {
    const wide = [...document.querySelectorAll("main *")]
      .filter(one => one.getBoundingClientRect().right > innerWidth + 1)
      .map(one => one.tagName + "." + one.className).slice(0, 20);
    faults.push("the page scrolls sideways: " + wide);
  }
  scrollTo(0, 0);
  const box = document.querySelector("header.frame").getBoundingClientRect();
  const at = document.elementFromPoint(box.left + 20, box.top + box.height / 2);
  if (at === null || at.closest("header.frame") === null) faults.push("something covers the frame");
  const isWithin = [...document.querySelectorAll(".strip .cell")].every(cell => {
    const own = cell.getBoundingClientRect();
    const line = cell.parentElement.getBoundingClientRect();
    return own.top >= line.top - 1 && own.bottom <= line.bottom + 1;
  });
  if (!isWithin) faults.push("a token leaves its line");
  return faults;
}"""
# What no page of the console makes, at any time.
_MADE: Final = """() => {
  const made = "main :is(script, iframe, img, form, base, style), main a:not([href^='/console/'])";
  return [...document.querySelectorAll(made)].map(one => one.outerHTML.slice(0, 200));
}"""


def assert_is_only_text(page: Page) -> None:
    assert page.evaluate(_MADE) == []
    try:
        page.wait_for_function(f"() => ({_LAYOUT_FAULTS})().length === 0")
    except Error:
        raise AssertionError(page.evaluate(_LAYOUT_FAULTS)) from None
    assert page.evaluate(_MADE) == []


def open_watched(console: Console, request_id: str, search: str = "", size: tuple[int, int] = WIDE) -> Page:
    page = console.open("nowhere", size=size)
    watched(console, page)
    page.goto(f"{console.url}/console/requests/{quote(request_id, safe='')}{search}")
    return page


def spoken(texts: Sequence[str]) -> list[Spoken]:
    """Return a position for each text, which is its token, its reading, its concept and its claims."""
    return [
        Spoken(
            position,
            text if len(text) < 10_000 or position % 2 else text[:9000],
            text,
            concepts=[text[:500]] if text else [],
            claims=None
            if position % 3
            else {
                "register": text[:2000],
                "area": text[:2000],
                "topic": text[:2000],
                "kinds": [text[:2000]],
                "expects": text[:2000],
                "expects_agreement": 0.75,
                "areas": {text[:2000]: 0.81},
                "kind_scores": {text[:2000]: 0.64},
            },
        )
        for position, text in enumerate(texts)
    ]


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_two_hundred_hostile_readings_are_text(console: Console, size: tuple[int, int]) -> None:
    texts = list(two_hundred())
    assert len(set(texts)) == 200
    with console.sessions.begin() as session:
        audited = seed.add_model(session, "<b>tiny</b>")
        add_request(session, audited, spoken(texts))
        flag = seed.add_flag(session, audited, concept=MARKUP[1], severity="critical")
        seed.add_incident(session, flag)
    page = open_watched(console, "chat-1", "?position=0", size)
    drawer = page.get_by_role("complementary", name="Reading")
    expect(page.get_by_text("200 of 200 sampled positions", exact=True)).to_be_visible(timeout=60_000)
    assert_is_only_text(page)

    for position in [*range(len(MARKUP)), 197, 198, 199]:
        if position == 197:
            page.get_by_role("listbox").focus()
            page.keyboard.press("End")
            page.keyboard.press("k")
            page.keyboard.press("k")
        expect(drawer.get_by_role("heading", level=2)).to_contain_text(f"Position {position}")
        expect(drawer.get_by_role("heading", name="Evidence log")).to_be_visible()
        assert_is_only_text(page)
        page.keyboard.press("j")

    page.keyboard.press("Escape")
    page.get_by_role("listbox").focus()
    page.keyboard.press("Home")
    first = page.get_by_role("listbox").get_by_role("option", selected=True)
    expect(first).to_contain_text("<script>alert(1)</script>"[:24])


def test_a_long_line_is_cut_and_its_rest_can_be_asked_for(console: Console) -> None:
    with console.sessions.begin() as session:
        add_request(session, seed.add_model(session), [Spoken(0, "x" * 1_000_000, "y" * 1_000_000)])
    page = open_watched(console, "chat-1", "?position=0")
    drawer = page.get_by_role("complementary", name="Reading")

    more = drawer.get_by_role("button", name=re.compile("Show more of 1,000,000 characters"))
    expect(more).to_be_visible()
    assert len(page.content()) < 100_000
    more.click()
    expect(drawer.locator(".reading")).to_contain_text("y" * 11_000)
    assert_is_only_text(page)


def test_ids_that_would_be_addresses_or_markup_are_text(console: Console) -> None:
    with console.sessions.begin() as session:
        audited = seed.add_model(session)
        for request_id in IDS:
            add_request(session, audited, [Spoken(0), Spoken(3)], request_id)
    page = open_watched(console, "chat-1")

    html = get(f"{console.url}/console/requests/chat-1").text

    for number, request_id in enumerate(IDS):
        path = f"/console/requests/{quote(request_id, safe='')}"
        if number % 6 == 0:
            page.goto(f"{console.url}{path}")
        else:  # as by a link, which takes a tenth of the time
            assert get(f"{console.url}{path}").text == html
            page.evaluate("path => history.pushState(null, '', path)", path)
        expect(page).to_have_url(re.compile("capture="))
        expect(page.get_by_role("listbox", name="2 sampled positions"), request_id[:60]).to_be_visible()
        assert "key=stx" not in page.url.split("?", 1)[-1]
        assert_is_only_text(page)


def test_ids_that_nobody_sent_are_said_to_be_unknown(console: Console) -> None:
    page = open_watched(console, "chat-1")
    for request_id in ("<img src=x onerror=alert(1)>", "%", "a/b", "\u202e", "z" * 8000):
        page.goto(f"{console.url}/console/requests/{quote(request_id, safe='')}")
        expect(page.get_by_text("Nothing is stored under this id.")).to_be_visible()
        assert_is_only_text(page)
    page.goto(f"{console.url}/console/requests/%E0%A4%A")
    expect(page.get_by_text("The address holds no request id that can be read.")).to_be_visible()
