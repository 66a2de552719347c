import base64
import json
from pathlib import Path
from typing import Any

import pytest

from service.settings import SettingsError, service_settings
from service.webhooks import transport
from service.webhooks.courier import Limits
from service.webhooks.destinations import Destination, read_destinations

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(SECRET)
    return path


def written(tmp_path: Path, *entries: dict[str, Any]) -> Path:
    path = tmp_path / "webhooks.json"
    path.write_text(json.dumps(entries))
    return path


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"url": "http://example.com/hook"}, "only loopback may be plain http"),
        ({"url": "http://10.0.0.1/hook"}, "only loopback may be plain http"),
        ({"url": "ftp://example.com"}, "write https://host/path"),
        ({"url": "https://me:secret@example.com/"}, "without a login"),
        ({"url": "https://example.com/#x"}, "without a fragment"),
        ({"url": "https://example.com:99999/"}, "ort"),
        ({"name": "On Call"}, "name"),
        ({"colour": "red"}, "colour"),
        ({"secret_file": "/nowhere/at/all"}, "/nowhere/at/all"),
        ({"ca_file": "/nowhere/at/all"}, "ca_file"),
    ],
)
def test_a_wrong_destination_names_the_field(
    tmp_path: Path, secret_file: Path, changes: dict[str, Any], told: str
) -> None:
    entry = {"name": "a", "url": "https://example.com/", "secret_file": str(secret_file)}

    with pytest.raises(ValueError, match="SUBTEXT_WEBHOOKS_FILE") as raised:
        read_destinations(written(tmp_path, entry | changes))

    assert told in str(raised.value)
    assert "me:secret" not in str(raised.value)


@pytest.mark.parametrize(
    "content", ["whsec_c2hvcnQ=", SECRET.removeprefix("whsec_"), f"{SECRET}\n" * 3, "whsec_!"]
)
def test_a_wrong_secret_is_refused_and_not_shown(tmp_path: Path, secret_file: Path, content: str) -> None:
    secret_file.write_text(content)
    entry = {"name": "a", "url": "https://example.com/", "secret_file": str(secret_file)}

    with pytest.raises(ValueError, match="secret_file is") as raised:
        read_destinations(written(tmp_path, entry))

    assert content.strip() not in str(raised.value)


def test_names_are_told_apart(tmp_path: Path, secret_file: Path) -> None:
    entry = {"name": "a", "url": "https://example.com/", "secret_file": str(secret_file)}

    with pytest.raises(ValueError, match="same name"):
        read_destinations(written(tmp_path, entry, entry))


def test_a_service_with_a_wrong_file_does_not_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SUBTEXT_DATABASE_URL", "postgresql://u@h/d")
    monkeypatch.setenv("SUBTEXT_WEBHOOKS_FILE", str(tmp_path / "none.json"))

    with pytest.raises(SettingsError, match=r"SUBTEXT_WEBHOOKS_FILE is .*none\.json, which cannot be read"):
        service_settings()


@pytest.mark.parametrize(
    ("host", "address", "by_default", "when_allowed"),
    [
        ("example.com", "93.184.215.14", True, True),
        ("example.com", "2606:2800:220:1::1", True, True),
        ("example.com", "10.0.0.1", False, True),
        ("example.com", "127.0.0.1", False, True),
        ("localhost", "127.0.0.1", True, True),
        ("127.0.0.1", "127.0.0.1", True, True),
        ("example.com", "169.254.169.254", False, False),
        ("example.com", "::ffff:169.254.169.254", False, False),
        ("example.com", "64:ff9b::a9fe:a9fe", False, False),
        ("example.com", "64:ff9b::a00:1", False, True),
        ("example.com", "2002:a00:1::1", False, True),
        ("example.com", "fe80::1%eth0", False, False),
        ("example.com", "fd00::1", False, True),
        ("example.com", "0.0.0.0", False, False),  # noqa: S104  # what must be refused
        ("example.com", "224.0.0.1", False, False),
    ],
)
def test_only_public_addresses_are_reached_unless_the_file_says_otherwise(
    *, secret_file: Path, host: str, address: str, by_default: bool, when_allowed: bool
) -> None:
    def made(*, allow_private: bool) -> Destination:
        return Destination(
            name="a", url="https://example.com/", secret_file=secret_file, allow_private=allow_private
        )

    assert transport.may_reach(made(allow_private=False), host, address) is by_default
    assert transport.may_reach(made(allow_private=True), host, address) is when_allowed


def test_a_receiver_may_be_away_for_about_a_day() -> None:
    limits = Limits()
    hours = [
        sum(limits.pause_after(attempt).total_seconds() for attempt in range(1, limits.max_attempts)) / 3600
        for _ in range(20)
    ]

    assert 12 < min(hours) < max(hours) < 36
    assert limits.pause_after(1).total_seconds() <= 5
