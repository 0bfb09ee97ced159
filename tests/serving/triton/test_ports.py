"""A port that is kept for a server, while it is up and while it is down."""

import socket

import pytest

from gravswell.serving.triton.ports import held_port

HOST = "127.0.0.1"


def test_a_held_port_is_its_servers_alone() -> None:
    with held_port(HOST) as port:
        for _ in range(2):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((HOST, port))
            with socket.create_server((HOST, port)), socket.create_connection((HOST, port)):
                pass
        with pytest.raises(OSError, match="in use"), socket.socket() as other:
            other.bind((HOST, port))


def test_a_port_that_another_has_is_not_held() -> None:
    with (
        socket.create_server((HOST, 0)) as other,
        pytest.raises(OSError, match="in use"),
        held_port(HOST, other.getsockname()[1]),
    ):
        pass
