from subtext_sidecar.local.policy_channel import address_of


def test_the_policy_socket_lies_beside_the_rows_own() -> None:
    assert address_of("ipc:///run/subtext.sock") == "ipc:///run/subtext.sock.policy"
