"""Search: the filters in the address, marked words, honest labels and empty states, and the keys."""

import datetime as dt
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from playwright.sync_api import Locator, Page, expect
from sqlalchemy import select

from service.store.access.tables import AccessEntry, Action
from tests.integration.service import seed
from tests.support.console import Console, wait_until_it_fits

PERIOD = "captured_after=2026-11-20T00:00:00Z&captured_before=2026-11-24T00:00:00Z"
TEXTS = ("An answer about first aid.", "A question about trains.", "First, some aid; then a train.")


def plant(console: Console, texts: Sequence[str] = TEXTS) -> None:
    """Store a reading of each text, each a minute older, at its position of one request."""
    with console.sessions.begin() as session:
        audited = seed.add_model(session)
        for number, text in enumerate(texts):
            seed.add_explanation(
                session,
                audited,
                request_id="chat/1",
                position=number,
                text=text,
                captured_at=seed.START - number * dt.timedelta(minutes=1),
                verified=number != 1,
                concept="deception" if number == 0 else None,
            )


def found(page: Page) -> Locator:
    """Return the rows that are drawn: inputs have options too."""
    return page.get_by_role("listbox", name="Readings").get_by_role("option")


def chosen(page: Page) -> Locator:
    return page.get_by_role("listbox", name="Readings").get_by_role("option", selected=True)


def test_words_are_found_marked_and_in_the_address(console: Console) -> None:
    plant(console)
    page = console.open("search")
    page.get_by_label("Words in readings").fill("first aid")
    page.get_by_label("From (UTC)").fill("2026-11-20T00:00:00")
    page.get_by_label("Before (UTC)").fill("2026-11-24T00:00:00")
    page.keyboard.press("Enter")

    expect(found(page)).to_have_count(2)
    expect(page.locator("mark")).to_have_text(["first", "aid", "First", "aid"])
    expect(page.get_by_text("2 readings, all that there are.")).to_be_visible()
    expect(page.get_by_text("Searched back to 2026-11-20 00:00:00 UTC")).to_be_visible()
    expect(page).to_have_url(re.compile(r"\?q=first\+aid&captured_after=2026-11-20T00%3A00%3A00Z&"))
    # The page asks for the chosen reading by itself, which is an entry of its own, in any order.
    searched = select(AccessEntry).where(AccessEntry.details.has_key("words_sha256"))
    with console.sessions() as session:
        actions = {entry.action for entry in session.scalars(searched)}
    assert actions == {Action.READ_TEXT}

    again = console.open(f"search?{urlsplit(page.url).query}")
    expect(found(again)).to_have_count(2)
    expect(again.get_by_label("Words in readings")).to_have_value("first aid")


def test_each_filter_narrows(console: Console) -> None:
    plant(console)
    page = console.open(f"search?{PERIOD}")
    expect(found(page)).to_have_count(3)

    page.get_by_label("Verified").select_option("verified only")
    page.get_by_role("button", name="Search", exact=True).click()
    expect(found(page)).to_have_count(2)
    page.get_by_label("Concept").fill("deception")
    page.get_by_role("button", name="Search", exact=True).click()
    expect(found(page)).to_have_count(1)
    page.get_by_label("Anomaly p-value").select_option("0.001")
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.get_by_text("0 readings, all that there are.")).to_be_visible()
    expect(found(page)).to_have_count(0)
    page.get_by_role("button", name="Clear").click()

    expect(found(page)).to_have_count(3)
    expect(page).to_have_url(f"{console.url}/console/search")


def test_words_without_a_time_are_searched_in_the_last_week_and_the_address_says_so(
    console: Console,
) -> None:
    page = console.open("search")
    page.get_by_label("Words in readings").fill("aid")
    page.keyboard.press("Enter")

    # Nothing is found before, too: the address tells that it was asked.
    expect(page).to_have_url(re.compile(r"\?q=aid&captured_after=\d{4}-\d\d-\d\dT\d\d%3A\d\d%3A\d\dZ$"))
    expect(page.get_by_text("Nothing was found.")).to_be_visible()


def test_the_keys_move_open_come_back_and_leave(console: Console) -> None:
    plant(console)
    page = console.open(f"search?{PERIOD}")
    expect(found(page)).to_have_count(3)

    page.keyboard.press("j")
    page.keyboard.press("j")
    expect(chosen(page)).to_contain_text("trains")
    page.keyboard.press("k")
    expect(chosen(page)).to_contain_text("first aid")
    page.keyboard.press("j")
    expect(chosen(page)).to_contain_text("trains")
    address = page.evaluate("location.href")
    page.keyboard.press("Enter")
    expect(page).to_have_url(
        re.compile(r"/requests/chat%2F1\?capture=[0-9a-f-]{36}&model=[^&]+&layer=\d+&position=1\b")
    )

    page.go_back()
    expect(chosen(page)).to_contain_text("trains")
    expect(page).to_have_url(address)
    page.keyboard.press("Escape")
    expect(chosen(page)).to_have_count(0)
    page.keyboard.press("Escape")
    expect(page).to_have_url(re.compile(r"/console/?$"))


def test_each_row_has_its_labels_and_no_figure_without_what_it_stands_on(console: Console) -> None:
    plant(console)
    page = console.open(f"search?{PERIOD}")
    expect(found(page)).to_have_count(3)

    for number, row in enumerate(found(page).all_inner_texts()):
        assert "hypothesis" in row
        assert ("unverified" in row) is (number == 1)
        assert ("not calibrated" in row) is ("match: deception" in row) is (number == 0)
        assert re.search(r"FVE beyond the token \u2212?0\.\d+, null: 95% of .* below 0\.10, n 512", row)
        assert "anomaly p 0.013, n 512, not corrected for how many were tested" in row


def test_nothing_found_says_among_how_many(console: Console) -> None:
    with console.sessions.begin() as session:
        seed.add_model(session)
        seed.add_coverage(session, hop="plugin", model="tiny", requests_seen=100, requests_sampled=25)
    page = console.open(f"search?q=nobody&{PERIOD}")

    expect(page.get_by_text("Nothing was found.")).to_be_visible()
    expect(page.get_by_text("25 of 100 (25.0%) requests were sampled")).to_be_visible()

    alone = console.open(
        f"search?q=nobody&{PERIOD}", scopes=("explanations:read", "explanations:read_text")
    )
    expect(alone.get_by_text("Counts need the scope coverage:read.")).to_be_visible()


def test_who_may_not_read_text_sees_readings_without_it_and_cannot_search_it(console: Console) -> None:
    plant(console)
    page = console.open(f"search?{PERIOD}", scopes=("explanations:read",), purpose=None)
    expect(found(page)).to_have_count(3)
    expect(found(page).filter(has_text="Text withheld.")).to_have_count(3)
    expect(page.get_by_text("lacks the scope").first).to_be_visible()
    page.goto(f"{console.url}/console/search?q=aid&{PERIOD}")
    expect(page.get_by_text("To look for words in readings is to read them.")).to_be_visible()
    expect(found(page)).to_have_count(0)

    unstated = console.open(f"search?q=aid&{PERIOD}", purpose=None)
    unstated.get_by_role("button", name="State a purpose to read the text").click()
    unstated.get_by_role("button", name="Show text").click()
    expect(found(unstated)).to_have_count(2)


def test_a_search_is_saved_by_name_opened_and_forgotten(console: Console) -> None:
    plant(console)
    page = console.open(f"search?concept=deception&{PERIOD}")
    page.get_by_text("Saved searches (0)").click()
    page.get_by_label("Name of this search").fill("lies <b>")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved searches (1)")).to_be_visible()
    page.goto(f"{console.url}/console/search")
    page.get_by_text("Saved searches (1)").click()
    page.get_by_role("link", name="lies <b>").click()

    expect(found(page)).to_have_count(1)
    expect(page).to_have_url(re.compile(r"\?concept=deception&"))
    page.get_by_role("button", name="Forget lies <b>").click()
    expect(page.get_by_text("Saved searches (0)")).to_be_visible()


def test_a_long_list_is_drawn_in_part_and_goes_on_by_pages(console: Console) -> None:
    plant(console, [f"reading {number} of many" for number in range(160)])
    page = console.open(f"search?q=many&{PERIOD}")
    expect(page.get_by_text("50 readings so far")).to_be_visible()
    assert found(page).count() < 40

    listed = page.get_by_role("listbox", name="Readings")
    listed.focus()
    for shown in ("100 readings so far", "150 readings so far", "160 readings, all that there are."):
        listed.press("End")
        expect(page.get_by_text(shown)).to_be_visible()
    expect(chosen(page)).to_be_visible()
    assert found(page).count() < 40


def test_hostile_readings_are_text(console: Console) -> None:
    hostile = "<img src=x onerror=alert(1)> \u202egnp aid \u202c " + "x" * 100_000
    plant(console, [hostile])
    page = console.open(f"search?q=aid&{PERIOD}")

    expect(found(page)).to_contain_text("<img src=x onerror=alert(1)>")
    expect(page.get_by_role("img", name="right-to-left override")).to_be_visible()
    expect(page.locator("mark")).to_have_text(["aid"])
    expect(page.locator("[role=option] img[src]")).to_have_count(0)
    wait_until_it_fits(page)
