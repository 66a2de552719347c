from pathlib import Path

import pytest

from subtext_sidecar.plugin.secret import read_keys
from tests.support.secret import write_secret
from workers.canary.cli import canary
from workers.canary.settings import CanarySettings

CANARIES = "{version: 1, canaries: [{concept: bombs, required_recall: 0.5, positive: [about bombs]}]}"


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    file = tmp_path / "canaries.yaml"
    file.write_text(CANARIES)
    found = {
        "SUBTEXT_CANARY_URL": "http://127.0.0.1:1/v1",
        "SUBTEXT_CANARIES_FILE": str(file),
        "SUBTEXT_SERVED_MODEL": "m",
        "SUBTEXT_SECRET_FILE": str(write_secret(tmp_path / "secret")),
        "SUBTEXT_CANARY_TOKENIZER_DIR": str(tmp_path),
        "SUBTEXT_DATABASE_URL": "postgresql://nobody:hidden@127.0.0.1:1/none",
    }
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    return found


def test_the_settings_come_from_the_environment(environment: dict[str, str]) -> None:
    settings = CanarySettings()

    assert str(settings.canary_url) == environment["SUBTEXT_CANARY_URL"]
    assert settings.api_key is None
    assert settings.tenant == "default"
    assert len(settings.key) == 32


@pytest.mark.parametrize(
    "secret", [b"first\r\nsecond" + b"x" * 32, b"\xff\xfe" + b"x" * 32, b"x" * 32 + b"\r\n"]
)
def test_the_key_is_the_plugins_whatever_bytes_the_secret_has(
    secret: bytes, environment: dict[str, str]
) -> None:
    file = Path(environment["SUBTEXT_SECRET_FILE"])
    file.write_bytes(secret)

    assert CanarySettings().key == read_keys(file, "secret_file").canary


def test_an_empty_secret_refuses_to_start(
    environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path(environment["SUBTEXT_SECRET_FILE"]).write_bytes(b"\n")

    assert canary([]) == 2
    assert "SUBTEXT_SECRET_FILE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SUBTEXT_CANARY_URL", "vllm"),
        ("SUBTEXT_CANARY_URL", None),
        ("SUBTEXT_SECRET_FILE", "/does/not/exist"),
        ("SUBTEXT_SECRET_FILE", "/"),
        ("SUBTEXT_CANARY_TOKENIZER_DIR", "/does/not/exist"),
        ("SUBTEXT_CANARY_TOKENIZER_DIR", None),
        ("SUBTEXT_CANARY_API_KEY_FILE", "/does/not/exist"),
        ("SUBTEXT_CANARY_INTERVAL_SECONDS", "1"),
        ("SUBTEXT_CANARY_INTERVAL_SECONDS", "14401"),
        ("SUBTEXT_CANARY_ANSWER_TOKENS", "65"),
        ("SUBTEXT_TENANT", "Acme Inc"),
    ],
)
@pytest.mark.usefixtures("environment")
def test_a_bad_setting_refuses_to_start_and_is_named(
    name: str, value: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if value is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, value)

    assert canary([]) == 2

    said = capsys.readouterr().err
    assert name in said
    assert "hidden" not in said


def test_a_bad_file_refuses_to_start(
    environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path(environment["SUBTEXT_CANARIES_FILE"]).write_text("{}")

    assert canary([]) == 2
    assert "version" in capsys.readouterr().err
