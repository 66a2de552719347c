"""What is stored of benign requests becomes the file that concepts are calibrated on."""

from pathlib import Path

import pytest

from tests.support.worker import MODEL, Bench, make_record
from workers.calibrate.concepts import load_readings
from workers.calibrate.readings import readings
from workers.nla.fake import FakeDecoder

CAPTURE, FOUND, ASKED = "5eed" * 8, "f00d" * 8, "a5ed" * 8
SPAN = ("--after", "2027-01-15T00:00:00Z", "--before", "2027-01-16T00:00:00+00:00")
NOON = 1_800_014_400.0


@pytest.fixture
def ask(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("SUBTEXT_DATABASE_URL", bench.parts.settings.database_url.get_secret_value())
    return ["--model", MODEL, "--layer", "1", "--out", str(tmp_path / "readings.jsonl"), *SPAN]


def test_readings_are_written_as_the_flag_rule_looks_at_them(
    bench: Bench, ask: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    screened = {"baseline_probability": 0.0, "reason": "screen_anomaly"}
    for position in (4, 2):
        bench.add(*make_record(position=position, capture_id=CAPTURE, captured_at=NOON))
        bench.drain()
    for position in range(3):
        changes = screened if position == 1 else {}
        bench.add(*make_record(position=position, capture_id=FOUND, captured_at=NOON, **changes))
        bench.drain()
    bench.add(*make_record(capture_id=ASKED, stratum="opt_in", captured_at=NOON))
    bench.add(*make_record(position=9, capture_id=CAPTURE, captured_at=NOON + 86_400))
    bench.drain()

    assert readings(ask) == 0

    found = load_readings(tmp_path / "readings.jsonl")
    assert [(one.request, one.position) for one in found] == [(CAPTURE, 4), (CAPTURE, 2), (FOUND, 0)]
    assert all(one.text and one.captured_at is not None for one in found)
    said = capsys.readouterr().err
    assert "3 readings of 2 requests" in said
    assert f"--decoder-digest {FakeDecoder().identity.digest}" in said


def test_readings_of_one_tenant_are_written_with_the_login_of_a_reader(
    bench: Bench, ask: list[str], tmp_path: Path, reader_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tenant, capture in (("default", CAPTURE), ("acme", FOUND)):
        bench.add(*make_record(capture_id=capture, tenant=tenant, captured_at=NOON))
    bench.drain()
    monkeypatch.setenv("SUBTEXT_DATABASE_URL", reader_url)

    for asked, capture in ((ask, CAPTURE), ([*ask, "--tenant", "acme"], FOUND)):
        assert readings(asked) == 0
        [found] = load_readings(tmp_path / "readings.jsonl")
        assert found.request == capture


def test_what_cannot_be_written_is_refused_with_the_field(
    ask: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert readings(ask) == 2
    assert "after, before" in capsys.readouterr().err
    assert readings([*ask, "--decoder-digest", "another"]) == 2
    assert "decoder-digest" in capsys.readouterr().err
    assert list(tmp_path.glob("*readings*")) == []
    with pytest.raises(SystemExit):
        readings([*ask, "--after", "2027-01-15T00:00:00"])
    assert "time zone" in capsys.readouterr().err
