"""The command tells the subject key of an id that is in no argument."""

import io
from pathlib import Path

import pytest

from subtext_sidecar.commands import subject
from subtext_sidecar.contract.subject import subject_key, tenant_secret
from tests.support.secret import SECRET, write_secret


@pytest.fixture
def secret_file(tmp_path: Path) -> str:
    return str(write_secret(tmp_path / "subject_secret", SECRET + b"\n"))


def say(monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(said)))


@pytest.mark.parametrize("said", [b"ada", b"ada\n", b"ada\r\n"])
def test_the_key_is_the_engines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], secret_file: str, said: bytes
) -> None:
    say(monkeypatch, said)

    assert subject(["--secret-file", secret_file, "--tenant", "acme"]) == 0

    assert capsys.readouterr().out.strip() == subject_key(tenant_secret(SECRET, "acme"), "ada")


@pytest.mark.parametrize("said", [b"", b"\n", b"\xff", b"x" * 257])
def test_what_is_no_id_has_no_key(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], secret_file: str, said: bytes
) -> None:
    say(monkeypatch, said)

    assert subject(["--secret-file", secret_file]) == 1

    told = capsys.readouterr()
    assert (told.out, told.err.startswith("subtext subject: ")) == ("", True)


def test_a_secret_that_is_none_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], secret_file: str
) -> None:
    say(monkeypatch, b"ada")

    assert subject(["--secret-file", str(tmp_path / "none")]) == 1
    assert "--secret-file: " in capsys.readouterr().err
    with pytest.raises(SystemExit):
        subject(["--secret-file", secret_file, "--tenant", "Acme Inc"])
