"""`subtext worker` refuses bad settings by name, before anything heavy is loaded."""

import pytest

from workers.cli import worker

GOOD = {
    "SUBTEXT_DATABASE_URL": "postgresql://user:hunter2@localhost/subtext",
    "SUBTEXT_REDIS_URL": "redis://localhost",
    "SUBTEXT_DECODER_DIR": "/nowhere",
    "SUBTEXT_CONCEPTS_FILE": "/nowhere/concepts.yaml",
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SUBTEXT_BATCH_ENTRIES", "0"),
        ("SUBTEXT_HTTP_PORT", "http"),
        ("SUBTEXT_LOG_LEVEL", "loud"),
        ("SUBTEXT_RECLAIM_IDLE_SECONDS", "0.1"),
        ("SUBTEXT_HTTP_HOST", "0.0.0.0"),  # noqa: S104  # refused
        ("SUBTEXT_PLAIN_HTTP", "yes"),
        ("SUBTEXT_REDIS_PASSWORD_FILE", "/nowhere"),
        ("SUBTEXT_DATABASE_PASSWORD_FILE", "/nowhere"),
        ("SUBTEXT_TLS_CERT_FILE", "/certificate"),
    ],
)
def test_a_bad_setting_is_named_and_no_secret_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    for key, given in (GOOD | {name: value}).items():
        monkeypatch.setenv(key, given)

    assert worker([]) == 2

    said = capsys.readouterr().err
    assert name in said
    assert "hunter2" not in said


def test_every_missing_setting_is_named_and_the_option_stands_for_its_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for key in GOOD:
        monkeypatch.delenv(key, raising=False)

    assert worker(["--decoder-dir", "/nowhere"]) == 2

    said = capsys.readouterr().err
    assert {key for key in GOOD if key in said} == GOOD.keys() - {"SUBTEXT_DECODER_DIR"}
