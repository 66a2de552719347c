"""Keys, policy, concepts and retention, as an administrator works with them."""

import datetime as dt
import re

import pytest
from playwright.sync_api import Page, expect

from service.store import keys
from service.store.configuration import write
from service.store.configuration.write import Report
from service.store.write.concepts import NewConcept, register_concepts
from subtext_sidecar.contract.configuration import Kind, configuration
from subtext_sidecar.contract.counters import Hop
from tests.integration.service import seed
from tests.support.console import Console, now

CAPTURE = {"request_rate": 0.5, "decode_stride": 8, "window": 2, "prompt_window": 2, "skip_first": 10}
HOSTILE = "<img src=x onerror=alert(1)>\u202egnp.exe"
DIGEST = "2" * 64
CALIBRATION = {
    "digest": "c" * 64,
    "positions_judged": 24,
    "concepts": {
        "deception": {
            "digest": DIGEST,
            "positions_required": 3,
            "threshold": None,
            "target_false_positive_rate": 0.01,
            "reason": None,
            "measured": {"requests": 1200, "incidents": 9, "rate": 0.0075, "upper_limit": 0.0131},
        }
    },
    "held_out": None,
}


@pytest.fixture
def watched(console: Console) -> Console:
    """A model with a policy, traffic of the last hour, and a concept with two versions."""
    minute = now().replace(second=0, microsecond=0) - dt.timedelta(minutes=5)
    with console.sessions.begin() as session:
        audited = seed.add_model(session)
        seed.add_coverage(
            session,
            hop="plugin",
            minute=minute,
            requests_seen=400,
            requests_sampled=200,
            rows_sampled=2400,
        )
        for version, digest in ((1, "1" * 64), (2, DIGEST)):
            definition = {"severity": "critical", "positions_required": 2, "description": HOSTILE}
            concept = NewConcept(name="deception", version=version, digest=digest, definition=definition)
            register_concepts(session, audited.model.id, [concept])
        seed.add_explanation(session, audited, captured_at=minute)
        concepts = configuration(Kind.CONCEPTS, {"concepts": [{"name": "deception", "digest": DIGEST}]})
        for hop, one in (
            (Hop.PLUGIN, configuration(Kind.CAPTURE_POLICY, CAPTURE)),
            (Hop.WORKER, concepts),
            (Hop.WORKER, configuration(Kind.CONCEPT_CALIBRATION, CALIBRATION)),
        ):
            write.note(session, [Report(source="s", hop=hop, model="tiny", layer=None, configuration=one)])
    return console


def test_a_key_is_made_shown_once_and_revoked(console: Console) -> None:
    page = console.open("admin/keys", name="ward")
    own = console.key("admin", name=HOSTILE)
    page.get_by_role("button", name="Make a key").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("night shift")
    dialog.get_by_label("Role").select_option("reader")
    dialog.get_by_label("Secret of a key").fill("subtext_none")
    dialog.get_by_role("button", name="Make it").click()
    expect(dialog.get_by_role("alert")).to_contain_text("own_secret is of no valid key")

    dialog.get_by_label("Secret of a key").fill(own)
    dialog.get_by_role("button", name="Make it").click()

    expect(page.get_by_role("heading", name="shown this once")).to_be_visible()
    shown = page.locator("code.secret")
    expect(shown).to_have_text(re.compile(r"^subtext_[\w-]{43}$"))
    secret = shown.inner_text()
    page.get_by_role("button", name="I have it").click()
    expect(shown).to_have_count(0)
    expect(page.get_by_role("rowheader", name="night shift")).to_be_visible()
    assert secret not in page.content()

    page.get_by_role("button", name="Revoke night shift").click()
    page.get_by_role("dialog").get_by_label("Note").fill("left")
    page.get_by_role("button", name="Revoke it").click()

    expect(page.get_by_role("row", name="night shift")).to_contain_text("revoked")
    with console.sessions() as session:
        [made] = [key for key in keys.list_keys(session) if key.name == "night shift"]
    assert made.revoked_at is not None
    assert made.role == "reader"


def test_who_may_not_see_keys_is_told_which_scope_is_missing(console: Console) -> None:
    page = console.open("admin/keys", scopes=("coverage:read",), purpose=None)
    expect(page.get_by_text("keys:read")).to_be_visible()
    expect(page.get_by_role("button", name="Make a key")).to_have_count(0)


def test_a_policy_is_tried_and_a_wrong_one_names_its_field(watched: Console) -> None:
    page = watched.open("admin/policy", scopes=("coverage:read",), purpose=None)
    document = page.get_by_label("Proposed policy")
    expect(document).to_have_value(re.compile('"request_rate": 0.5'))

    document.fill('{"capture": {"request_rate": 2}}')
    page.get_by_role("button", name="Work it out").click()
    expect(page.get_by_role("alert")).to_contain_text("policy.capture.request_rate")

    document.fill('{"capture": {"request_rate": 0.1}}')
    page.get_by_label("On the requests of").select_option("hour")
    page.get_by_role("button", name="Work it out").click()

    row = page.get_by_role("row", name="uniform")
    expect(row).to_contain_text("200 of 400 requests, 2,400 rows")
    expect(row).to_contain_text("400, each at 0.1")
    expect(row).to_contain_text(re.compile(r"40 \(\d+ to \d+\)"))
    expect(row).to_contain_text("not told: 0 to")
    expect(page.get_by_text("Which requests would have been taken cannot be told")).to_be_visible()


def test_the_policys_history_shows_what_was(watched: Console) -> None:
    page = watched.open("admin/policy", scopes=("coverage:read",), purpose=None)
    history = page.get_by_role("region", name="History")
    expect(history.get_by_text("began")).to_be_visible()
    history.get_by_role("button", name="Show content of").click()
    expect(history.get_by_text('"decode_stride": 8')).to_be_visible()


def test_concepts_have_every_version_with_rate_limit_and_n(watched: Console) -> None:
    page = watched.open("admin/concepts", scopes=("flags:read",), purpose=None)
    expect(page.get_by_text("0.75%, at most 1.3% (one-sided 95%), n 1,200")).to_be_visible()
    new = page.get_by_role("row", name="in force used since")
    old = page.get_by_role("row", name="no longer")
    expect(new).to_contain_text("3 verified positions of the first 24")
    expect(new).to_contain_text("0 of 1: 0%")
    expect(old).to_contain_text("not calibrated")
    expect(old).to_contain_text("not measured")
    new.get_by_text("Show").click()
    expect(page.get_by_text("<img src=x onerror").first).to_be_visible()


def fill_hold(page: Page) -> None:
    page.get_by_role("button", name="Place a hold").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Model").fill("tiny")
    dialog.get_by_label("Why nothing of it may go").fill("a case")
    dialog.get_by_label("Reference").fill("case 7")
    dialog.get_by_role("button", name="Place it").click()


def lift(page: Page, action: str, confirm: str) -> None:
    page.get_by_role("button", name=action).click()
    page.get_by_role("dialog").get_by_label("Why it may end").fill("settled")
    page.get_by_role("dialog").get_by_role("button", name=confirm).click()


def test_a_hold_is_placed_and_lifted_by_two(watched: Console) -> None:
    page = watched.open("admin/retention")
    fill_hold(page)
    hold = page.get_by_role("article", name="Hold case 7")
    expect(hold).to_contain_text("in force")
    lift(page, "Ask to lift", "Ask to lift it")
    expect(hold).to_contain_text("lift asked for")
    lift(page, "Confirm the lift", "Confirm the lift")
    expect(page.get_by_role("dialog").get_by_role("alert")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)

    other = watched.open("admin/retention", name="second")
    lift(other, "Confirm the lift", "Confirm the lift")

    expect(other.get_by_text("No hold is in force.")).to_be_visible()
    other.get_by_label("show lifted").check()
    expect(other.get_by_role("article", name="Hold case 7")).to_contain_text("Lift confirmed")


def test_a_period_is_set_and_one_below_its_class_is_refused(watched: Console) -> None:
    page = watched.open("admin/retention")
    expect(page.get_by_text("No period is set: nothing is removed.")).to_be_visible()
    page.get_by_role("button", name="Set a period").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Days after their capture").fill("90")
    dialog.get_by_label("Why").fill("a duty")
    dialog.get_by_role("button", name="Set it").click()
    expect(dialog.get_by_role("alert")).to_contain_text("period_days")

    dialog.get_by_label("Days after their capture").fill("200")
    dialog.get_by_role("button", name="Set it").click()

    waiting = page.get_by_role("article", name="Period that waits")
    expect(waiting).to_contain_text("200 days for all others")
    decide(page, "Confirm the period", "Confirm it")
    expect(page.get_by_role("dialog").get_by_role("alert")).to_be_visible()

    other = watched.open("admin/retention", name="second")
    decide(other, "Confirm the period", "Confirm it")
    expect(other.get_by_role("row", name="all others")).to_contain_text("200 days")
    expect(other.get_by_role("article", name="Period that waits")).to_have_count(0)


def test_a_period_that_waits_is_objected_to(watched: Console) -> None:
    with watched.sessions.begin() as session:
        seed.add_period(session, 200, is_confirmed=False)
    page = watched.open("admin/retention")

    decide(page, "Object to the period", "Object to it")

    expect(page.get_by_role("article", name="Period that waits")).to_have_count(0)
    expect(page.get_by_text("No period is set: nothing is removed.")).to_be_visible()


def test_an_erasure_that_waits_is_confirmed_by_somebody_else(watched: Console) -> None:
    with watched.sessions.begin() as session:
        asked = seed.add_erasure(session)
    page = watched.open("admin/retention")
    waiting = page.get_by_role("article", name="Erasure that waits")
    expect(waiting).to_contain_text("Of one request")
    expect(waiting).to_contain_text("by data protection")
    expect(waiting).to_contain_text(str(asked))

    decide(page, "Confirm the erasure", "Confirm it")

    expect(waiting).to_have_count(0)
    expect(page.get_by_role("region", name="Erasures that wait")).to_contain_text("None waits.")


def decide(page: Page, opens: str, decides: str) -> None:
    page.get_by_role("button", name=opens).click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Why").fill("as agreed")
    dialog.get_by_role("button", name=decides).click()
