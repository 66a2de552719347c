"""Every journey by the keyboard alone: the focus is always somewhere, and where it is can be seen."""

import re
from collections.abc import Callable, Iterator
from typing import Final

import pytest
from playwright.sync_api import Error, Locator, Page, expect

from service.store.write.concepts import NewConcept, register_concepts
from tests.console.planted import CONCEPT, READING, add_everything
from tests.integration.service import seed
from tests.support.console import Console, Driver, running_console
from tests.support.services import cloned_database

# What is wrong with the focus; null while nothing is.
FAULT: Final = """() => {
  const at = document.activeElement;
  if (at === null || at === document.body) return "nothing has the focus";
  const box = at.getBoundingClientRect();
  const told = `${at.tagName} ${at.id} ${at.className} ${at.textContent.slice(0, 60)}`;
  if (box.width === 0 || box.bottom <= 0 || box.top >= innerHeight) return `out of view: ${told}`;
  if (getComputedStyle(at).outlineStyle === "none") return `without an outline: ${told}`;
  return null;
}"""
STEPS_AT_MOST: Final = 90


class Keys:
    """A page that is used by its keyboard alone, and whose focus is looked at after every key."""

    def __init__(self, page: Page) -> None:
        self.page = page
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        expect(page.get_by_text(re.compile("^Loading "))).to_have_count(0)
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the page")).to_be_focused()
        self.press("Enter")

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)
            self.look(key)

    def look(self, after: str) -> None:
        try:
            self.page.wait_for_function(f"() => ({FAULT})() === null")
        except Error:
            raise AssertionError(f"after {after}: {self.page.evaluate(FAULT)}") from None

    def go_to(self, target: Locator, key: str = "Tab") -> None:
        """Move on by Tab until this has the focus."""
        expect(target).to_be_visible()
        for _ in range(STEPS_AT_MOST):
            if target.evaluate("at => at === document.activeElement"):
                return
            self.press(key)
        raise AssertionError(f"no number of {key} leads to {target}")

    def type(self, target: Locator, text: str) -> None:
        self.go_to(target)
        self.press("Control+a")
        self.page.keyboard.type(text)

    def button(self, name: str) -> None:
        """Go to a button of the dialog, or of the page where there is none, and press it."""
        dialog = self.page.get_by_role("dialog")
        within = dialog if dialog.count() else self.page.get_by_role("main")
        self.go_to(within.get_by_role("button", name=name))
        self.press("Enter")


@pytest.fixture(scope="module")
def planted(
    postgres_server: str, template_database: str, driver: Driver, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Console]:
    """One service over one store for all journeys: none leaves what another one needs otherwise."""
    with (
        cloned_database(postgres_server, template_database) as url,
        running_console(url, driver, tmp_path_factory.mktemp("console")) as made,
    ):
        with made.sessions.begin() as session:
            audited = add_everything(session)
            twice = NewConcept(name="fraud", version=1, digest="d" * 64, definition={"second_review": True})
            register_concepts(session, audited.model.id, [twice])
            seed.add_explanation(session, audited, request_id="of two", concept="fraud")
            flag = seed.add_flag(session, audited, request_id="of two", concept="fraud")
            flag.concept_digest = twice.digest
            seed.add_incident(session, flag)
        yield made


def from_the_overview_to_a_request(keys: Keys, _: Console) -> None:
    page = keys.page
    keys.go_to(page.get_by_role("region", name=re.compile("^Newest readings")).get_by_role("link").last)
    keys.press("Enter")
    expect(page.get_by_role("heading", name="Request", level=1)).to_be_focused()


def through_a_request(keys: Keys, _: Console) -> None:
    page = keys.page
    drawer = page.get_by_role("complementary", name="Reading")
    strip = page.get_by_role("listbox")
    keys.go_to(page.get_by_role("combobox", name="Lens"))
    keys.press("ArrowUp")
    keys.go_to(strip)
    keys.press("j", "l", "Enter")
    expect(drawer.get_by_role("heading", name="Position 1")).to_be_focused()
    expect(drawer.get_by_text(READING).first).to_be_visible()
    keys.press("j", "k")
    keys.go_to(drawer.get_by_role("button", name="Next sampled position"))
    keys.press("Enter", "Enter", "Enter")
    expect(drawer.get_by_role("heading", level=2)).to_contain_text("Position 5")
    keys.press("Escape")
    expect(strip).to_be_focused()


def through_a_search(keys: Keys, _: Console) -> None:
    page = keys.page
    keys.type(page.get_by_label("Words in readings"), "aid")
    keys.press("Enter")
    # Without words all readings were listed already: this tells that it is the answer to them.
    expect(page.get_by_text("Searched back to")).to_be_visible()
    keys.look("the answer")
    keys.press("Escape")
    expect(page.get_by_role("listbox")).to_be_focused()
    keys.press("j", "j", "k")
    chosen = page.get_by_role("listbox", name="Readings").get_by_role("option", selected=True)
    expect(chosen).to_have_attribute("aria-posinset", "1")
    keys.press("Escape")
    expect(chosen).to_have_count(0)
    keys.press("j", "Enter")
    expect(page.get_by_role("heading", name="Request", level=1)).to_be_focused()


def through_the_queue(keys: Keys, planted: Console) -> None:
    work_off(keys, "of two waits for a second reviewer", 3)
    second = Keys(planted.open("review", name="second"))
    work_off(second, "of two is confirmed", 1)
    expect(second.page.get_by_text("No incident waits here.")).to_be_visible()


def work_off(keys: Keys, told: str, incidents: int) -> None:
    """Confirm what waits, one after the other as they open, until nothing is left."""
    page = keys.page
    said = []
    expect(page.locator(".review-row")).to_have_count(incidents)
    keys.press("j", "Enter")
    for left in range(incidents - 1, -1, -1):
        heading = page.get_by_role("heading", level=2).first
        expect(heading).to_be_focused()
        request = heading.inner_text()
        keys.press("c", "Space", "Tab")
        keys.go_to(page.get_by_role("dialog").get_by_role("button", name="Confirm"))
        keys.press("Enter")
        expect(page.get_by_role("dialog")).to_have_count(0)
        if left:
            expect(heading).not_to_have_text(request)
        else:
            expect(heading).to_have_count(0)
        keys.look("the verdict")
        expect(page.locator(".review-told")).to_contain_text(re.compile(f"^{re.escape(request[:12])}"))
        said.append(page.locator(".review-told").inner_text())
    assert any(told in one for one in said), said


def through_coverage(keys: Keys, _: Console) -> None:
    page = keys.page
    keys.go_to(page.get_by_label("By", exact=True))
    keys.press("ArrowDown")
    show = page.get_by_role("button", name="Show")
    keys.go_to(show)
    keys.press("Enter")
    expect(page).to_have_url(re.compile("resolution=day"))
    expect(page.get_by_text("by day, as it was known")).to_be_visible()
    expect(show).to_be_focused()
    keys.go_to(page.locator("summary").first)
    keys.press("Enter")
    expect(page.get_by_role("group", name="Steps")).to_be_visible()


def through_calibration(keys: Keys, _: Console) -> None:
    keys.go_to(keys.page.locator("main [tabindex='0']:visible").last)
    keys.press("ArrowRight", "Shift+Tab")


def through_the_keys(keys: Keys, planted: Console) -> None:
    page = keys.page
    keys.button("Make a key")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Name")).to_be_focused()
    page.keyboard.type("by keys")
    keys.type(dialog.get_by_label("Secret of a key"), "subtext_none")
    keys.press("Enter")
    expect(dialog.get_by_role("alert")).to_contain_text("own_secret")
    keys.look("the refusal")
    keys.type(dialog.get_by_label("Secret of a key"), planted.key("admin", name="own"))
    keys.press("Enter")
    expect(page.get_by_role("heading", name="shown this once")).to_be_focused()
    keys.button("I have it")
    expect(page.get_by_role("button", name="Make a key")).to_be_focused()
    keys.button("Revoke by keys")
    keys.button("Revoke it")
    expect(dialog).to_have_count(0)
    keys.look("the key is revoked")


def through_the_policy(keys: Keys, _: Console) -> None:
    page = keys.page
    document = page.get_by_label("Proposed policy")
    expect(document).to_have_value(re.compile("request_rate"))
    keys.type(document, '{"capture": {"request_rate": 0.1}}')
    keys.button("Work it out")
    expect(page.get_by_role("row", name="uniform")).to_be_visible()
    keys.look("the answer")
    expect(page.get_by_role("button", name="Work it out")).to_be_focused()


def through_the_concepts(keys: Keys, _: Console) -> None:
    page = keys.page
    keys.go_to(page.get_by_label("Flagged requests of the"))
    with page.expect_response(re.compile(r"/v1/concepts\?")):
        keys.press("ArrowDown")
    expect(page.get_by_role("heading", name=CONCEPT)).to_be_visible()
    keys.look("another range")
    keys.go_to(page.locator("summary").first)
    keys.press("Enter")
    expect(page.get_by_text("positions_required").first).to_be_visible()


def through_retention(keys: Keys, _: Console) -> None:
    page = keys.page
    dialog = page.get_by_role("dialog")
    keys.button("Object to the period")
    page.keyboard.type("a mistake")
    keys.press("Enter")
    expect(dialog).to_have_count(0)
    keys.look("the objection")
    keys.button("Set a period")
    keys.press("Escape")
    expect(page.get_by_role("button", name="Set a period")).to_be_focused()
    keys.button("Object to the erasure")
    page.keyboard.type("a mistake")
    keys.press("Enter")
    expect(page.get_by_role("article", name="Erasure that waits")).to_have_count(0)
    keys.look("the objection")


def through_the_holds(keys: Keys, _: Console) -> None:
    page = keys.page
    dialog = page.get_by_role("dialog")
    keys.button("Place a hold")
    expect(dialog.get_by_label("Model")).to_be_focused()
    page.keyboard.type("tiny")
    keys.type(dialog.get_by_label("Why nothing of it may go"), "a case")
    keys.type(dialog.get_by_label("Reference"), "by keys")
    keys.press("Enter")
    hold = page.get_by_role("article", name="Hold by keys")
    expect(hold).to_contain_text("in force")
    expect(page.get_by_role("button", name="Place a hold")).to_be_focused()
    keys.go_to(hold.get_by_role("button", name="Ask to lift"))
    keys.press("Enter")
    page.keyboard.type("settled")
    keys.press("Enter")
    expect(hold).to_contain_text("lift asked for")
    keys.look("the lift is asked for")


def through_the_frame(keys: Keys, _: Console) -> None:
    page = keys.page
    keys.press("?")
    expect(page.get_by_role("heading", name="Settings")).to_be_focused()
    keys.press("Tab", "Tab", "ArrowDown", "Escape")
    purpose = page.get_by_role("button", name="Purpose: Debugging")
    keys.go_to(purpose, "Shift+Tab")
    keys.press("Enter", "Tab", "Enter")
    expect(page.get_by_role("button", name="Purpose: Incident response")).to_be_focused()


@pytest.mark.parametrize(
    ("path", "journey"),
    [
        ("", from_the_overview_to_a_request),
        ("requests/chat-1", through_a_request),
        ("search", through_a_search),
        ("review", through_the_queue),
        ("coverage", through_coverage),
        ("calibration", through_calibration),
        ("admin/keys", through_the_keys),
        ("admin/policy", through_the_policy),
        ("admin/concepts", through_the_concepts),
        ("admin/retention", through_retention),
        ("admin/retention", through_the_holds),
        ("nowhere", through_the_frame),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_a_journey_needs_no_mouse_and_never_loses_the_focus(
    planted: Console, path: str, journey: Callable[[Keys, Console], None]
) -> None:
    journey(Keys(planted.open(path)), planted)
