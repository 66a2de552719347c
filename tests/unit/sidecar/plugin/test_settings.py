import pytest

from subtext_sidecar.local.policy import CapturePolicy
from subtext_sidecar.plugin.settings import SettingsError, parse_settings
from subtext_sidecar.plugin.state import CaptureState
from subtext_sidecar.plugin.vllm.hooks import read_settings

GOOD = {"layer": 20, "socket": "ipc:///tmp/s.sock", "secret_file": "/run/secrets/draw"}


def test_three_fields_are_enough() -> None:
    settings = parse_settings(GOOD)

    assert (settings.layer, settings.request_rate, settings.queue_rows) == (20, 1.0, 4096)


def test_an_engine_is_of_the_default_tenant_unless_it_names_another() -> None:
    assert parse_settings(GOOD).tenant == "default"
    assert parse_settings({**GOOD, "tenant": "acme-eu"}).tenant == "acme-eu"


def test_the_fields_of_the_start_policy_stand_beside_the_others() -> None:
    settings = parse_settings({**GOOD, "request_rate": 0.25, "rows_per_second": 50, "honour_trace": True})

    assert settings.policy() == CapturePolicy(request_rate=0.25, rows_per_second=50, honour_trace=True)


def test_the_socket_leaves_room_for_the_one_beside_it() -> None:
    longest = "ipc://" + "x" * 100

    assert parse_settings({**GOOD, "socket": longest}).socket == longest
    with pytest.raises(SettingsError, match=r"socket: the path is longer than 100 bytes"):
        parse_settings({**GOOD, "socket": longest + "x"})


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"layer": -1}, "layer"),
        ({"layer": "20"}, "layer"),
        ({"request_rate": 1.1}, "request_rate"),
        ({"socket": "tcp://10.0.0.1:5555"}, "socket"),
        ({"socket": "ipc://" + "x" * 200}, "socket"),
        ({"secret_file": ""}, "secret_file"),
        ({"secret_file": 5}, "secret_file"),
        ({"window": 9}, r"additional_config\.subtext\.window is 9: it must be at most decode_stride"),
        ({"rows_per_second": -1}, "rows_per_second"),
        ({"honour_opt_out": 1}, "honour_opt_out"),
        ({"prompt_window": 65}, "prompt_window"),
        ({"decode_strides": 4}, "decode_strides"),
        ({"fault": "everything"}, "fault"),
        ({"metrics_port": 70_000}, "metrics_port"),
        ({"split": "kv_both"}, "split"),
        ({"engines": 0}, "engines"),
        ({"tenant": 5}, "tenant"),
        ({"subjects": "claimed"}, "subjects"),
        (
            {"subjects": "asserted"},
            r"additional_config\.subtext\.subject_secret_file is missing.*'asserted'",
        ),
        ({"subjects": "proved"}, r"subject_secret_file is missing.*openssl"),
        ({"subjects": "proved", "subject_secret_file": ""}, "subject_secret_file"),
        ({"tenant": ""}, r"additional_config\.subtext\.tenant is ''"),
        (
            {"tenant": "Acme Inc"},
            r"additional_config\.subtext\.tenant is 'Acme Inc': give 1 to 63",
        ),
    ],
)
def test_a_bad_value_is_refused_by_name(changes: dict[str, object], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        parse_settings({**GOOD, **changes})


@pytest.mark.parametrize("value", [None, [], "layer=20", {"socket": "ipc:///tmp/s.sock"}, {"layer": 1}])
def test_a_value_of_another_shape_is_refused(value: object) -> None:
    with pytest.raises(SettingsError, match=r"additional_config\.subtext"):
        parse_settings(value)


def test_without_a_secret_the_error_names_the_key_and_how_to_make_one() -> None:
    with pytest.raises(SettingsError, match=r"additional_config\.subtext\.secret_file is missing.*openssl"):
        parse_settings({key: value for key, value in GOOD.items() if key != "secret_file"})


def test_of_settings_that_cannot_be_read_the_socket_is_kept_and_the_layer_is_0() -> None:
    state = CaptureState()

    settings = read_settings({**GOOD, "request_rate": 2}, state)

    assert settings is not None
    assert (settings.socket, settings.layer, state.reason) == (GOOD["socket"], 0, "bad_settings")
