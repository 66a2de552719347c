"""The report: every figure of the JSON is in the PDF, with the denominator that was worked out by hand."""

import datetime as dt
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pypdf import PdfReader
from sqlalchemy import text, update
from sqlalchemy.orm import Session, sessionmaker

from service import commands
from service.report.model import Figure
from service.store.canary import runs
from service.store.canary.tables import CanaryRun
from service.store.tables import AnomalyWindow
from tests.integration.service import seed

Sessions = sessionmaker[Session]
MINUTE = dt.timedelta(minutes=1)
PERIOD = ["--from", "2026-11-23", "--to", "2026-11-24"]
HEADINGS = [
    "1 Functionality",
    "2 Operational",
    "3 Human factors",
    "4 Security",
    "5 Compliance",
    "6 Large-scale impacts",
    "7 What was not looked at",
    "8 What this report cannot say",
]


@pytest.fixture
def _store(reader_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUBTEXT_DATABASE_URL", reader_url)


def _plant(sessions: Sessions) -> None:
    """Ten minutes of traffic, four judged requests of which one is flagged and confirmed, four canaries."""
    with sessions.begin() as session:
        audited = seed.add_model(session)
        for number in range(10):
            minute = seed.START + number * MINUTE
            seed.add_coverage(
                session,
                hop="plugin",
                minute=minute,
                requests_seen=10,
                requests_sampled=1,
                rows_sampled=4,
                rows_handed_over=3,
                dropped_queue_full=1,
            )
            seed.add_coverage(session, hop="sidecar", minute=minute, rows_received=3, rows_shipped=3)
            seed.add_coverage(session, hop="worker", minute=minute, rows_consumed=2, rows_decoded=2)
        for number in range(4):
            seed.add_explanation(session, audited, request_id=f"r{number}", baseline_probability=0.1)
        flag = seed.add_flag(session, audited, request_id="r0", concept="weapons", severity="critical")
        incident = seed.add_incident(session, flag)
        incident.state, incident.labels, incident.opened_at = "confirmed", {"weapons": True}, seed.START
        seed.add_window(session, audited, ["r1"], ["r2", "r3"])
        for outcome in ("flagged", "flagged", "flagged", "not_flagged"):
            new = runs.NewRun(
                model="tiny", concept="weapons", kind="positive", outcome=outcome, lost_at=None
            )
            runs.add(session, new)
        session.execute(update(CanaryRun).values(ended_at=seed.START))
        session.execute(update(AnomalyWindow).values(closed_at=seed.START))


def _strings(report: dict[str, Any]) -> Iterator[str]:
    for section in report["sections"]:
        yield section["heading"]
        yield section["text"]
        yield from section["notes"]
        for figure in section["figures"]:
            yield figure["label"]
            yield Figure.model_validate(figure).text
            yield figure["query"]
        for table in section["tables"]:
            yield table["title"]
            yield table["query"]
            yield from table["columns"]
            for row in table["rows"]:
                yield from row


def _squeezed(text: str) -> str:
    # Lines and long words are broken anywhere.
    return re.sub(r"\s", "", text)


@pytest.mark.usefixtures("_store")
def test_the_pdf_says_what_the_json_says_and_both_are_right(sessions: Sessions, tmp_path: Path) -> None:
    _plant(sessions)

    assert commands.report([*PERIOD, "--model", "tiny", "--out", str(tmp_path)]) == 0

    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert [section["heading"] for section in report["sections"]] == HEADINGS
    pages = PdfReader(tmp_path / "report.pdf").pages
    printed = _squeezed(" ".join(page.extract_text() for page in pages))
    # A table that runs over a page repeats its head, and each page has its foot: both split no cell.
    missing = [text for text in _strings(report) if _squeezed(text) not in printed]
    assert missing == []

    figures = {one["label"]: one for section in report["sections"] for one in section["figures"]}
    parts = {label: (one["numerator"], one["denominator"]) for label, one in figures.items()}
    assert parts["tiny: requests sampled"] == (10, 100)
    assert parts["tiny: activations decoded"] == (20, 40)
    assert parts["tiny: activations dropped"] == (10, 40)
    assert parts["tiny: minutes with traffic"] == (10, 1440)
    assert parts["tiny: hops that balance"] == (5, 5)
    assert parts["tiny, weapons: recall on canaries"] == (3, 4)
    assert parts["tiny: activations without any counted outcome"] == (10, 40)
    [label] = [one for one in figures if "anomalies, at a false discovery rate of 0.1" in one]
    assert parts[label] == (1, 3)
    with sessions() as session:
        [found] = session.execute(text(figures[label]["query"].removeprefix("SQL: ")))
    assert (found[-2], found[-1]) == parts[label]
    precision = figures["tiny, weapons, layer 20, decoder tiny-l20: labelled precision"]
    assert (precision["value"], precision["interval"]["lower"]) == (1.0, pytest.approx(0.025))
    [share] = [one for label, one in figures.items() if "share of requests" in label]
    assert (share["value"], share["denominator"]) == (0.25, 4)
    assert figures["Open erasures, now"]["absent"] is not None  # nobody ever asked for one
    [clocks] = [
        table for section in report["sections"] for table in section["tables"] if "73" in table["title"]
    ]
    assert len(clocks["rows"]) == 1


@pytest.mark.usefixtures("_store")
def test_every_number_has_its_denominator_or_says_why_there_is_none(
    sessions: Sessions, tmp_path: Path
) -> None:
    with sessions.begin() as session:
        seed.add_model(session)

    assert commands.report([*PERIOD, "--out", str(tmp_path)]) == 0

    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    for section in report["sections"]:
        for figure in section["figures"]:
            assert (figure["denominator"] or 0) > 0 or figure["absent"], figure
            assert figure["query"].startswith(("GET /v1/", "SQL: SELECT "))


@pytest.mark.usefixtures("_store")
def test_a_period_that_is_empty_or_too_long_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "none"

    assert commands.report(["--from", "2026-11-24", "--to", "2026-11-24", "--out", str(out)]) == 2
    assert commands.report(["--from", "2024-11-24", "--to", "2026-11-24", "--out", str(out)]) == 2
    with pytest.raises(SystemExit):
        commands.report(["--from", "yesterday", "--to", "2026-11-24", "--out", str(out)])
    assert "366 days" in capsys.readouterr().err
    assert not out.exists()
