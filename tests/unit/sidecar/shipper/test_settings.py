from pathlib import Path

import pytest

from subtext_sidecar.shipper.settings import parse_settings

GOOD = {"SUBTEXT_SOCKET": "ipc:///tmp/s.sock", "SUBTEXT_REDIS_URL": "redis://127.0.0.1:6379/0"}


def test_the_environment_is_enough_and_flags_win() -> None:
    settings = parse_settings(["--http-port", "0"], {**GOOD, "SUBTEXT_HTTP_PORT": "9000"})

    assert (settings.socket, settings.http_port) == ("ipc:///tmp/s.sock", 0)
    assert (settings.screen_file, settings.policy_file) == (None, None)


def test_files_are_taken_from_flags_or_the_environment() -> None:
    settings = parse_settings(["--screen-file", "/a"], {**GOOD, "SUBTEXT_POLICY_FILE": "/b"})

    assert (settings.screen_file, settings.policy_file) == (Path("/a"), Path("/b"))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"SUBTEXT_SOCKET": ""}, "SUBTEXT_SOCKET"),
        ({"SUBTEXT_SOCKET": "tcp://0.0.0.0:1"}, "--socket"),
        ({"SUBTEXT_REDIS_URL": ""}, "SUBTEXT_REDIS_URL"),
        ({"SUBTEXT_HTTP_PORT": "many"}, "SUBTEXT_HTTP_PORT"),
        ({"SUBTEXT_BUFFER_BYTES": "10"}, "SUBTEXT_BUFFER_BYTES"),
        ({"SUBTEXT_LOG_LEVEL": "loud"}, "SUBTEXT_LOG_LEVEL"),
        ({"SUBTEXT_HTTP_HOST": "0.0.0.0"}, "SUBTEXT_PLAIN_HTTP=private-network"),  # noqa: S104  # refused
        ({"SUBTEXT_REDIS_PASSWORD_FILE": "/nowhere"}, "SUBTEXT_REDIS_PASSWORD_FILE is /nowhere"),
        ({"SUBTEXT_PLAIN_HTTP": "yes"}, "SUBTEXT_PLAIN_HTTP"),
        ({"SUBTEXT_TLS_KEY_FILE": "/k"}, "SUBTEXT_TLS_CERT_FILE"),
    ],
)
def test_a_bad_value_refuses_to_start_and_names_itself(
    changes: dict[str, str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_settings([], {**GOOD, **changes})

    assert caught.value.code == 2
    assert named in capsys.readouterr().err
