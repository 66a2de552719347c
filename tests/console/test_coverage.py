"""The coverage page: what was not looked at, by hour and reason, for the range in the address."""

import datetime as dt
import re

from playwright.sync_api import expect

from tests.integration.service import seed
from tests.support.console import Console

HOUR = dt.timedelta(hours=1)
DAY = "coverage?from=2026-11-23T00:00:00Z&to=2026-11-24T00:00:00Z&resolution=hour"


def plant(console: Console) -> None:
    """Store two hours with traffic and one lost minute between them."""
    with console.sessions.begin() as session:
        seed.add_model(session)
        for start in (seed.START, seed.START + HOUR):
            seed.add_coverage(
                session, hop="plugin", minute=start, requests_seen=60, requests_sampled=30, rows_sampled=100
            )
            seed.add_coverage(session, hop="plugin", minute=start, source="b", dropped_queue_full=7)
            seed.add_coverage(session, hop="worker", minute=start, rows_consumed=93, rows_decoded=90)


def test_it_tells_by_hour_and_reason_what_was_not_looked_at(console: Console) -> None:
    plant(console)
    page = console.open(DAY)

    model = page.get_by_role("region", name="tiny")
    expect(model).to_contain_text("60 of 120 requests (50.0%)")
    expect(model).to_contain_text("180 of 200 activations (90.0%)")
    expect(model.get_by_role("row", name="plugin dropped queue full 14")).to_be_visible()
    expect(model).to_contain_text("Of 120 requests seen and 200 activations sampled")
    expect(model).to_contain_text("counts do not agree")
    model.locator("summary").filter(has_text="By hour").click()
    row = model.get_by_role("row", name="2026-11-23 05:00:00 UTC")
    expect(row).to_contain_text("30 of 60 (50.0%)")
    expect(row).to_contain_text("7 of 100 (7.0%)")
    expect(row).to_contain_text("queue full 7")
    expect(page.get_by_role("region", name="What these figures cannot see")).to_be_visible()
    expect(page.get_by_text("Retention removed nothing of this range.")).to_be_visible()


def test_the_range_is_in_the_address_and_changed_by_keyboard(console: Console) -> None:
    plant(console)
    page = console.open(DAY)
    expect(page.get_by_role("region", name="tiny")).to_be_visible()

    page.get_by_label("To (UTC)").fill("2026-11-23T06:00")
    page.keyboard.press("Enter")

    expect(page.get_by_role("region", name="tiny")).to_contain_text("30 of 60 requests (50.0%)")
    expect(page).to_have_url(re.compile(r"to=2026-11-23T06%3A00%3A00\.000Z"))
    page.go_back()
    expect(page.get_by_role("region", name="tiny")).to_contain_text("60 of 120 requests (50.0%)")
    page.get_by_label("To (UTC)").fill("2026-11-22T06:00")
    expect(page.get_by_role("alert")).to_contain_text("later than the start")
    expect(page.get_by_role("button", name="Show")).to_be_disabled()


def test_a_range_that_the_service_refuses_is_told_in_its_words(console: Console) -> None:
    page = console.open("coverage?from=2020-01-01T00:00:00Z&to=2026-01-01T00:00:00Z")

    expect(page.get_by_role("alert")).to_contain_text("at most 366 days")


def test_without_its_scope_it_says_which(console: Console) -> None:
    page = console.open("coverage", scopes=("flags:read",), purpose=None)

    expect(page.get_by_text("coverage:read")).to_be_visible()
