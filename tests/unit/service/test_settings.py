from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from service.settings import ServiceSettings

URL = SecretStr("postgresql://reader@localhost/subtext")


def test_thresholds_are_written_by_concept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUBTEXT_PREVALENCE_THRESHOLDS", "weapons=0.01, self-harm=0.005,")

    found = ServiceSettings(database_url=URL).prevalence_thresholds

    assert found == {"weapons": 0.01, "self-harm": 0.005}


def test_sessions_over_plain_http_need_an_address_that_only_this_machine_reaches() -> None:
    near = ServiceSettings(database_url=URL, session_plain_http=True)

    assert near.plan.cookies.session == "subtext-plain"
    with pytest.raises(ValidationError, match=r"SUBTEXT_SESSION_PLAIN_HTTP is true and SUBTEXT_HTTP_HOST"):
        ServiceSettings(
            database_url=URL, session_plain_http=True, http_host="192.0.2.1", plain_http="behind-proxy"
        )


def test_our_own_origin_is_that_of_the_public_url() -> None:
    told = ServiceSettings(database_url=URL, public_url="https://audit.example/subtext")

    assert (told.plan.origin, ServiceSettings(database_url=URL).plan.origin) == (
        "https://audit.example",
        None,
    )


@pytest.mark.parametrize(
    "written", ["weapons", "weapons=", "=0.1", "weapons=1", "weapons=0", "a=nan", "a=b"]
)
def test_a_wrong_threshold_is_refused_with_the_way_to_write_it(
    monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    monkeypatch.setenv("SUBTEXT_PREVALENCE_THRESHOLDS", written)

    with pytest.raises(ValidationError, match=r"prevalence_thresholds\n.*write CONCEPT=SHARE"):
        ServiceSettings(database_url=URL)


def test_the_secret_of_subject_keys_is_read_as_the_engines_read_it(tmp_path: Path) -> None:
    file = tmp_path / "subject_secret"
    file.write_text("0123456789abcdef" * 2 + "\r\n")

    settings = ServiceSettings(database_url=URL, subject_secret_file=file)

    assert settings.subject_secret == b"0123456789abcdef" * 2
    assert ServiceSettings(database_url=URL).subject_secret is None


@pytest.mark.parametrize(("content", "wrong"), [("short", "5 bytes: it needs 32"), ("", "is empty")])
def test_a_secret_of_subject_keys_that_is_none_is_refused(tmp_path: Path, content: str, wrong: str) -> None:
    file = tmp_path / "subject_secret"
    file.write_text(content)

    with pytest.raises(ValidationError, match=f"SUBTEXT_SUBJECT_SECRET_FILE is .*{wrong}"):
        ServiceSettings(database_url=URL, subject_secret_file=file)
