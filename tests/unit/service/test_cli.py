from collections.abc import Callable

import pytest

from service import cli, commands


def test_help_lists_every_command_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    listed = capsys.readouterr().out

    for name, summary in cli.SUMMARIES.items():
        assert any(line.split() == [name, *summary.split()] for line in listed.splitlines()), name
    assert cli.main([]) == 0


def test_an_unknown_command_exits_2_with_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sevrice"]) == 2

    captured = capsys.readouterr()
    assert captured.out == ""
    assert "'sevrice'" in captured.err
    assert "  service " in captured.err


@pytest.mark.parametrize("command", [commands.service, commands.migrate])
def test_a_missing_setting_is_named_and_nothing_starts(
    command: Callable[[list[str]], int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SUBTEXT_DATABASE_URL", raising=False)

    assert command([]) == 2
    assert "SUBTEXT_DATABASE_URL" in capsys.readouterr().err


def test_every_bad_setting_is_named_without_its_value(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SUBTEXT_DATABASE_URL", "mysql://user:hunter2@host/name")
    monkeypatch.setenv("SUBTEXT_HTTP_PORT", "99999")
    monkeypatch.setenv("SUBTEXT_LOG_LEVEL", "loud")

    assert commands.service([]) == 2

    said = capsys.readouterr().err
    for name in ("SUBTEXT_DATABASE_URL", "SUBTEXT_HTTP_PORT", "SUBTEXT_LOG_LEVEL"):
        assert name in said
    assert "hunter2" not in said


@pytest.mark.parametrize("days", ["0", "-1", "nan", "inf", "soon", "1e9"])
def test_an_impossible_expiry_is_refused(days: str) -> None:
    with pytest.raises(SystemExit) as caught:
        commands.key(["create", "--name", "n", "--scope", "admin", "--expires-in-days", days])

    assert caught.value.code == 2
