"""The calibration page: detectors with their rates, decoders with their cards and nulls."""

import datetime as dt
import json
from pathlib import Path

from playwright.sync_api import expect

from service.store.canary import runs
from service.store.canary.runs import NewRun
from tests.integration.service import seed
from tests.support.console import Console, now

CARD = Path(__file__).resolve().parents[2] / "deploy" / "decoders" / "smollm2-135m-l23"


def plant(console: Console) -> None:
    """Store a decoder with a real card, flags with and without a rate, and canaries."""
    with console.sessions.begin() as session:
        audited = seed.add_model(session)
        measured = json.loads((CARD / "calibration.json").read_text(encoding="utf-8"))["measured"]
        card = json.loads((CARD / "card.json").read_text(encoding="utf-8"))
        audited.decoder.card = card | {"calibration": measured}
        seed.add_decoder(session, audited.model, 7)
        at = now() - dt.timedelta(days=2)
        seed.add_flag(session, audited, captured_at=at)
        seed.add_flag(session, audited, captured_at=at, concept="fraud", request_id="chat-2")
        for outcome in ("flagged", "not_flagged"):
            runs.add(
                session,
                NewRun(model="tiny", concept="weapons", kind="positive", outcome=outcome, lost_at=None),
            )


def test_every_rate_has_its_interval_or_says_that_it_is_not_known(console: Console) -> None:
    plant(console)
    page = console.open("calibration")

    row = page.get_by_role("row", name="deception")
    expect(row.get_by_text("not calibrated")).to_be_visible()
    expect(row).to_contain_text("not measured: its flags are leads")
    expect(row).to_contain_text("not known: nobody labelled a flag")
    expect(row).to_contain_text("1 of 1 flags (100%)")
    expect(row).to_contain_text("not known: no canary has run")
    weapons = page.get_by_role("row", name="weapons")
    expect(weapons).to_contain_text("no flag in this time")
    expect(weapons).to_contain_text("50.0% [1.3%, 98.7%], n 2")


def test_a_decoders_card_shows_its_readings_beside_nulls(console: Console) -> None:
    plant(console)
    page = console.open("calibration")

    card = page.get_by_role("region", name="Decoder tiny-l20")
    expect(card).to_contain_text("answer 0.10, prompt 0.20, template 0.30, from n 512 readings")
    fve = card.get_by_role("row", name="FVE 0.72 [0.71, 0.74] 720", exact=True)
    expect(fve).to_be_visible()
    shuffled = card.get_by_role("row", name="shuffled FVE")
    expect(shuffled).to_contain_text("(null)")
    expect(shuffled).to_contain_text("-0.85 [-0.88, -0.82]".replace("-", "\u2212"))
    expect(card.get_by_text("one in twenty of other vectors' readings passes")).to_be_visible()
    bare = page.get_by_role("region", name="Decoder tiny-l7")
    expect(bare).to_contain_text("The calibration curve: not available.")


def test_an_empty_store_says_that_nothing_is_known(console: Console) -> None:
    page = console.open("calibration")

    expect(page.get_by_text("nothing is known of any")).to_be_visible()
    expect(page.get_by_text("No decoder has read anything yet.")).to_be_visible()
