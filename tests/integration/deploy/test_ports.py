import socket

from deploy.local.ports import HOST, Ports, choose_ports


def test_a_taken_port_is_replaced_and_no_two_are_equal() -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]

        chosen = choose_ports(Ports(openai=port, api=port, plugin=port))

    ports = [chosen.openai, chosen.api, chosen.plugin, chosen.sidecar, chosen.worker, chosen.valkey]
    assert port not in ports
    assert len(set(ports)) == len(ports)
