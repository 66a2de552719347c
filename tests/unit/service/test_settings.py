import pytest
from pydantic import SecretStr, ValidationError

from service.settings import ServiceSettings

URL = SecretStr("postgresql://reader@localhost/subtext")


def test_thresholds_are_written_by_concept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUBTEXT_PREVALENCE_THRESHOLDS", "weapons=0.01, self-harm=0.005,")

    found = ServiceSettings(database_url=URL).prevalence_thresholds

    assert found == {"weapons": 0.01, "self-harm": 0.005}


@pytest.mark.parametrize(
    "written", ["weapons", "weapons=", "=0.1", "weapons=1", "weapons=0", "a=nan", "a=b"]
)
def test_a_wrong_threshold_is_refused_with_the_way_to_write_it(
    monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    monkeypatch.setenv("SUBTEXT_PREVALENCE_THRESHOLDS", written)

    with pytest.raises(ValidationError, match=r"prevalence_thresholds\n.*write CONCEPT=SHARE"):
        ServiceSettings(database_url=URL)
