"""The overview: every figure with its denominator or interval, absent ones as absent, and all live."""

import datetime as dt
import re

from playwright.sync_api import Locator, Page, expect

from service.store.canary import runs
from service.store.canary.runs import NewRun
from tests.integration.service import seed
from tests.support.console import Console, now

HOSTILE = "<img src=x onerror=alert(1)>\u202etxt"


def plant(console: Console) -> None:
    """Store a day with traffic, losses, a flag, a window of tests and canaries."""
    minute = now().replace(second=0, microsecond=0) - dt.timedelta(minutes=3)
    with console.sessions.begin() as session:
        audited = seed.add_model(session)
        seed.add_explanation(
            session, audited, request_id=HOSTILE, captured_at=minute, concept="deception", verified=False
        )
        seed.add_explanation(session, audited, request_id="chat-2", captured_at=minute, position=41)
        seed.add_incident(session, seed.add_flag(session, audited, captured_at=minute))
        seed.add_window(session, audited, ["chat-2"], ["chat-3", "chat-4", "chat-5"], captured_at=minute)
        seed.add_coverage(
            session, hop="plugin", minute=minute, requests_seen=1200, requests_sampled=300, rows_sampled=400
        )
        seed.add_coverage(session, hop="plugin", minute=minute, source="other", dropped_queue_full=20)
        seed.add_coverage(session, hop="worker", minute=minute, rows_consumed=380, rows_decoded=360)
        for outcome in ("flagged", "flagged", "not_flagged"):
            runs.add(
                session,
                NewRun(model="tiny", concept="weapons", kind="positive", outcome=outcome, lost_at=None),
            )


def region(page: Page, name: str) -> Locator:
    return page.get_by_role("region", name=re.compile(f"^{name}"))


def test_a_day_is_told_with_denominators_and_intervals(console: Console) -> None:
    plant(console)
    page = console.open()

    day = region(page, "Last 24 hours")
    for told in ("1,200", "300 of 1,200 requests (25.0%)", "360 of 400 activations (90.0%)"):
        expect(day.get_by_text(told, exact=True)).to_be_visible()
    expect(day).to_contain_text("Dropped20 of 400 activations (5.0%)")
    expect(region(page, "Last 15 minutes").get_by_text("300 of 1,200 requests (25.0%)")).to_be_visible()
    expect(region(page, "Anomalous requests")).to_contain_text(
        "1 of 4 tested requests (25.0%), in 1 window"
    )
    canaries = region(page, "Canary recall")
    expect(canaries).to_contain_text("66.7% [9.4%, 99.2%], n 3")
    prevalence = region(page, "Prevalence by concept")
    expect(prevalence).to_contain_text("deception")
    expect(prevalence).to_contain_text("not calibrated")
    expect(prevalence).to_contain_text("n 2")
    health = region(page, "Decoder health")
    expect(health).to_contain_text("1 of 2 newest readings (50.0%)")
    expect(health).to_contain_text("A worker: not available.")
    readings = region(page, "Newest readings")
    expect(readings.get_by_text("hypothesis")).to_be_visible()
    expect(readings.get_by_text("unverified", exact=True)).to_have_count(1)
    expect(readings.get_by_text("<img src=x onerror=alert(1)>")).to_be_visible()
    link = readings.get_by_role("link", name="chat-2")
    expect(link).to_have_attribute("href", re.compile(r"^/console/requests/chat-2\?capture="))


def test_what_happens_appears_by_itself(console: Console) -> None:
    page = console.open()
    expect(page.get_by_role("status").get_by_text("live", exact=True)).to_be_visible()
    expect(
        page.get_by_text("Nothing that was captured in the last 24 hours has been read.")
    ).to_be_visible()

    plant(console)

    expect(region(page, "Newest readings").get_by_role("link", name="chat-2")).to_be_visible()
    expect(region(page, "Last 15 minutes")).to_contain_text("300 of 1,200 requests (25.0%)")
    expect(region(page, "Incidents that nobody has decided on")).to_contain_text("tiny: 2 open")


def test_what_is_not_there_is_absent_and_never_zero(console: Console) -> None:
    with console.sessions.begin() as session:
        seed.add_model(session)
    page = console.open()

    expect(region(page, "Canary recall")).to_contain_text("No canary has run")
    expect(region(page, "Anomalous requests")).to_contain_text("the rate is not known")
    expect(region(page, "Prevalence by concept")).to_contain_text("there is none to estimate")
    expect(region(page, "Last 15 minutes")).to_contain_text("nobody who would have told of it")
    expect(region(page, "Last 24 hours")).to_contain_text("The flow of traffic: not available.")
    expect(page.get_by_text(re.compile("^Loading "))).to_have_count(0)
    expect(page.locator("main")).not_to_contain_text("0%")


def test_what_the_caller_may_not_see_is_told_as_that(console: Console) -> None:
    plant(console)
    page = console.open(scopes=("coverage:read",), purpose=None)

    expect(region(page, "Last 24 hours")).to_contain_text("300 of 1,200 requests")
    for what, scope in (
        ("Prevalence", "flags:read"),
        ("The anomaly rate", "flags:read"),
        ("Incidents", "flags:read"),
        ("Readings", "explanations:read"),
    ):
        absent = page.locator(".absent").filter(has_text=f"{what}: not available.")
        expect(absent).to_contain_text(scope)
    expect(page.get_by_text(re.compile("^Loading "))).to_have_count(0)
    assert "chat-2" not in page.content()
