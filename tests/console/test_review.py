"""The review queue: the whole journey by keyboard, two reviewers in conflict, and two who have to agree."""

import datetime as dt
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect
from sqlalchemy import update
from sqlalchemy.orm import Session

from service.store.tables import Flag, Incident
from service.store.write.concepts import NewConcept, register_concepts
from tests.integration.service import seed
from tests.support.console import NARROW, WIDE, Console, wait_until_it_fits

REVIEWER = ("flags:read", "explanations:read", "explanations:read_text", "incidents:triage")
HOUR = dt.timedelta(hours=1)


def plant(
    session: Session,
    audited: seed.Audited,
    request_id: str,
    *concepts: str,
    severity: str = "critical",
    age: dt.timedelta = HOUR,
    false_positive_rate: float | None = None,
) -> uuid.UUID:
    """Store one request with two readings and a flag of each concept; return its incident."""
    for position, concept in enumerate((concepts[0], None)):
        seed.add_explanation(
            session,
            audited,
            request_id=request_id,
            position=position,
            concept=concept,
            verified=concept is not None,
        )
    flags = []
    for concept in concepts:
        flag = seed.add_flag(session, audited, request_id=request_id, concept=concept, severity=severity)
        flag.false_positive_rate = false_positive_rate
        flags.append(flag)
    incident = seed.add_incident(session, *flags)
    incident.opened_at = dt.datetime.now(dt.UTC) - age
    return incident.id


def ask_for_two(session: Session, audited: seed.Audited, incident: uuid.UUID) -> None:
    """Let the concept of the incident's flag ask for a second reviewer."""

    asking = NewConcept(name="fraud", version=1, digest="d" * 64, definition={"second_review": True})
    register_concepts(session, audited.model.id, [asking])
    request_id = session.get_one(Incident, incident).request_id
    of_it = update(Flag).where(Flag.request_id == request_id)
    session.execute(of_it.values(concept_digest=asking.digest))


@pytest.fixture
def queue(console: Console) -> dict[str, uuid.UUID]:
    """Three incidents, by request: an old critical one, a newer one with two concepts, and a warning."""
    with console.sessions.begin() as session:
        audited = seed.add_model(session)
        return {
            "newer": plant(session, audited, "newer", "deception", "harm", age=HOUR),
            "mild": plant(session, audited, "mild", "deception", severity="warning", age=9 * HOUR),
            "oldest": plant(session, audited, "oldest", "deception", age=3 * HOUR),
        }


def state_of(console: Console, incident: uuid.UUID) -> tuple[str, int, dict[str, Any]]:
    with console.sessions() as session:
        row = session.get_one(Incident, incident)
        return row.state, row.version, row.labels


def opened(page: Page, request_id: str) -> None:
    expect(page.get_by_role("heading", name=request_id, level=2)).to_be_visible()


def take(page: Page) -> None:
    """Take the open incident, and wait until the page has read what that made of it."""
    page.keyboard.press("a")
    expect(page.get_by_role("status").filter(has_text="It is yours")).to_be_visible()
    expect(page.get_by_text("Assigned to you.")).to_be_visible()
    expect(page.get_by_text("open → acknowledged")).to_be_visible()


@contextmanager
def unaware(page: Page) -> Iterator[None]:
    """Let the page not hear of what others do: it reads the queue again every 20 seconds.

    What it asks for meanwhile is answered at the end.
    """
    asked: list[Route] = []

    def hold(route: Route) -> None:
        asked.append(route)

    queue = re.compile(r"/v1/incidents\?")
    page.route(queue, hold)
    yield
    for route in asked:
        route.continue_()
    page.unroute(queue, hold)


def test_the_queue_is_worked_by_keyboard_alone(console: Console, queue: dict[str, uuid.UUID]) -> None:
    page = console.open("review", REVIEWER, name="night shift")
    rows = page.locator(".review-row")
    expect(rows).to_have_count(3)
    expect(rows).to_have_text([re.compile("oldestopen"), re.compile("neweropen"), re.compile("mildopen")])
    expect(page.get_by_text("3 of 3 undecided wait for you")).to_be_visible()

    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    opened(page, "oldest")
    expect(page.get_by_text(seed.SECRET_TEXT).first).to_be_visible()
    take(page)
    assert state_of(console, queue["oldest"])[:2] == ("acknowledged", 3)
    expect(page.get_by_text("no label yet, of 2 flags raised")).to_be_visible()

    page.keyboard.press("c")
    expect(page.get_by_role("dialog", name="Confirm the incident")).to_be_visible()
    page.keyboard.press("Space")  # the first reason
    page.keyboard.press("Tab")  # the only concept, ticked
    page.keyboard.press("Tab")
    page.keyboard.type("it is there, and c, d and j are letters of this note")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")

    opened(page, "newer")  # by itself
    expect(page).to_have_url(f"{console.url}/console/review/{queue['newer']}")
    expect(page.get_by_role("status").filter(has_text="oldest is confirmed.")).to_be_visible()
    assert state_of(console, queue["oldest"]) == ("confirmed", 4, {"deception": True})
    expect(page.get_by_text("1 of 1 confirmed")).to_be_visible()
    expect(page.get_by_text("100% [2.5%, 100%], n 1")).to_be_visible()

    page.keyboard.press("d")
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("radio", name="reading wrong")).to_be_checked()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    opened(page, "mild")
    assert state_of(console, queue["newer"])[2] == {"deception": False, "harm": False}
    page.go_back()
    opened(page, "newer")
    expect(
        page.get_by_text("1 of 2 confirmed")
    ).to_be_visible()  # its severity and detector's labels so far
    page.keyboard.press("Escape")
    expect(page.get_by_role("heading", name="newer", level=2)).to_have_count(0)
    expect(rows).to_have_count(1)
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Settings")).to_be_visible()


def test_a_verdict_is_taken_back_by_keyboard(console: Console, queue: dict[str, uuid.UUID]) -> None:
    page = console.open(f"review/{queue['mild']}", REVIEWER)
    opened(page, "mild")
    page.keyboard.press("d")
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    opened(page, "oldest")
    page.go_back()
    opened(page, "mild")
    expect(page.get_by_text("open → dismissed (not in request)")).to_be_visible()

    page.keyboard.press("o")

    expect(page.get_by_text("dismissed → open (reconsidered)")).to_be_visible()
    assert state_of(console, queue["mild"]) == ("open", 3, {})


def test_of_two_who_decide_at_once_the_second_sees_what_happened_and_loses_nothing(
    console: Console, queue: dict[str, uuid.UUID]
) -> None:
    first = console.open(f"review/{queue['newer']}", REVIEWER, name="night shift")
    second = console.open(f"review/{queue['newer']}", REVIEWER, name="day shift")
    opened(first, "newer")
    opened(second, "newer")
    second.keyboard.press("c")
    second.get_by_role("radio", name="seen elsewhere").check()
    second.get_by_role("checkbox", name="harm").check()
    second.get_by_label("Note").fill("what I wrote")

    take(first)
    second.get_by_role("button", name="Confirm", exact=True).click()

    told = second.get_by_role("dialog").get_by_role("alert")
    expect(told).to_contain_text("this happened since you read it")
    expect(told).to_contain_text("night shift took it")
    expect(second.get_by_label("Note")).to_have_value("what I wrote")
    expect(second.get_by_role("radio", name="seen elsewhere")).to_be_checked()
    expect(second.get_by_role("checkbox", name="harm")).to_be_checked()
    second.get_by_role("button", name="Confirm at version 3").click()
    opened(second, "mild")
    assert state_of(console, queue["newer"]) == ("confirmed", 4, {"deception": False, "harm": True})

    first.keyboard.press("d")  # of what was read before
    first.keyboard.press("Space")
    submit = first.get_by_role("dialog").locator("button[type=submit]")
    submit.click()
    told = first.get_by_role("dialog").get_by_role("alert")
    expect(told).to_contain_text("day shift acknowledged → confirmed (seen elsewhere)")
    expect(told).to_contain_text("It is confirmed now, so it cannot be dismissed from here.")
    expect(submit).to_be_disabled()


def test_taking_what_somebody_else_took_meanwhile_says_so(
    console: Console, queue: dict[str, uuid.UUID]
) -> None:
    first = console.open(f"review/{queue['mild']}", REVIEWER, name="night shift")
    second = console.open(f"review/{queue['mild']}", REVIEWER, name="day shift")
    opened(first, "mild")
    opened(second, "mild")
    with unaware(second):
        take(first)

        second.keyboard.press("a")

        expect(second.get_by_role("alert")).to_contain_text("night shift took it")
        expect(second.get_by_text("Assigned to night shift.")).to_be_visible()
    second.get_by_role("link", name="mine").click()
    expect(second.get_by_text("No incident waits here.")).to_be_visible()
    first.get_by_role("link", name="mine").click()
    expect(first.locator(".review-row")).to_have_count(1)


def test_where_a_concept_asks_for_two_the_second_agrees(console: Console) -> None:
    with console.sessions.begin() as session:
        audited = seed.add_model(session)
        incident = plant(session, audited, "of two", "fraud")
        ask_for_two(session, audited, incident)
        other = plant(session, audited, "of one", "deception", severity="info")
    first = console.open(f"review/{incident}", REVIEWER, name="night shift")
    opened(first, "of two")
    expect(first.get_by_text("asks for two reviewers: both")).to_be_visible()
    first.keyboard.press("c")
    expect(first.get_by_text("this is the first verdict")).to_be_visible()
    first.keyboard.press("Space")
    first.keyboard.press("Enter")

    opened(first, "of one")  # what waits for another reviewer is passed
    expect(first.get_by_role("status").filter(has_text="waits for a second reviewer")).to_be_visible()
    assert state_of(console, incident)[:2] == ("open", 2)
    first.go_back()
    expect(first.get_by_text("You gave the first verdict: confirmed")).to_be_visible()
    first.keyboard.press("c")
    first.keyboard.press("Space")
    first.keyboard.press("Enter")
    expect(first.get_by_role("dialog").get_by_role("alert")).to_contain_text(
        "another person or another key"
    )

    second = console.open(f"review/{incident}", REVIEWER, name="day shift")
    expect(second.get_by_text("night shift gave the first verdict: confirmed")).to_be_visible()
    second.keyboard.press("c")
    expect(second.get_by_role("checkbox", name="fraud")).to_be_checked()
    second.keyboard.press("Space")
    second.keyboard.press("Enter")
    opened(second, "of one")
    assert state_of(console, incident) == ("confirmed", 3, {"fraud": True})
    assert state_of(console, other)[0] == "open"


def test_everything_that_is_shown_bears_its_label_and_its_denominator(console: Console) -> None:
    with console.sessions.begin() as session:
        audited = seed.add_model(session)
        incident = plant(session, audited, "chat-1", "deception")
    page = console.open(f"review/{incident}", REVIEWER)
    opened(page, "chat-1")

    findings = page.get_by_role("region", name="What was found")
    expect(findings.get_by_text("not calibrated")).to_be_visible()
    expect(findings.get_by_text("hypothesis")).to_be_visible()
    expect(findings.get_by_text("3 of 14 verified positions matched (21.4%)")).to_be_visible()
    expect(findings.get_by_text("no rate was measured on benign requests")).to_be_visible()
    readings = page.get_by_role("region", name="Readings it stands on").get_by_role("listitem")
    expect(readings).to_have_count(2)
    for reading in readings.all():
        expect(reading.get_by_text("hypothesis")).to_be_visible()
        expect(reading.get_by_text(re.compile("^(un)?verified$"))).to_be_visible()
    expect(page.get_by_role("region", name="Measured precision")).to_contain_text("no label yet")
    expect(page.get_by_role("region", name=re.compile("Article 73"))).to_contain_text("15 days")
    expect(page.get_by_role("region", name="Who was told")).to_contain_text("No webhook was told")
    request = page.get_by_role("link", name="Open the request")
    expect(request).to_have_attribute("href", re.compile(r"^/console/requests/chat-1\?capture="))


def test_texts_are_withheld_without_a_purpose_and_decisions_without_the_scope(
    console: Console, queue: dict[str, uuid.UUID]
) -> None:
    page = console.open(f"review/{queue['mild']}", ("flags:read", "explanations:read"), purpose=None)
    opened(page, "mild")
    expect(page.get_by_text("Text withheld.").first).to_be_visible()
    expect(page.get_by_text("explanations:read_text")).to_be_visible()
    expect(page.get_by_text("incidents:triage")).to_be_visible()
    page.keyboard.press("c")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert seed.SECRET_TEXT not in page.content()

    page = console.open(f"review/{queue['mild']}", REVIEWER, purpose=None)
    opened(page, "mild")
    assert seed.SECRET_TEXT not in page.content()
    page.get_by_role("button", name="State a purpose to read the text").click()
    page.get_by_role("button", name="Show text").click()
    expect(page.get_by_text(seed.SECRET_TEXT).first).to_be_visible()


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.usefixtures("queue")
def test_the_queue_gives_way_to_the_incident_where_both_have_no_room(
    console: Console, size: tuple[int, int]
) -> None:
    page = console.open("review", REVIEWER, size=size)
    expect(page.locator(".review-row")).to_have_count(3)
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    opened(page, "oldest")
    expect(page.get_by_role("region", name=re.compile("Article 73"))).to_contain_text("15 days")
    expect(page.locator(".review-side")).to_be_visible(visible=size == WIDE)
    page.keyboard.press("c")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    opened(page, "newer")


def test_hostile_ids_and_notes_are_shown_as_text(console: Console) -> None:
    hostile = "<img src=x onerror=alert(1)>\u202egnp.exe\u2066" + "W" * 5000
    with console.sessions.begin() as session:
        audited = seed.add_model(session)
        plant(session, audited, hostile, "deception")
        plant(session, audited, "next", "deception", severity="info")
    page = console.open("review", REVIEWER, size=NARROW)
    expect(page.locator(".review-row")).to_have_count(2)
    wait_until_it_fits(page)
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    heading = page.get_by_role("heading", level=2)
    expect(heading).to_contain_text("<img src=x onerror=alert(1)>")
    expect(heading.get_by_role("img", name="U+202E right-to-left override")).to_be_visible()
    page.keyboard.press("d")
    page.keyboard.press("Space")
    page.get_by_label("Note").fill("<script>alert(1)</script>")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    opened(page, "next")
    told = page.get_by_role("status").filter(has_text="is dismissed.")
    expect(told.get_by_role("img", name="U+202E right-to-left override")).to_be_visible()
    wait_until_it_fits(page)
    page.go_back()
    expect(page.get_by_text("<script>alert(1)</script>")).to_be_visible()
    wait_until_it_fits(page)
    expect(page.locator("img, script:not([src])")).to_have_count(0)
