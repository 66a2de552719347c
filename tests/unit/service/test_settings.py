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
