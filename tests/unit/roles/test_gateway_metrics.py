"""The numbers of a gateway: a real HAProxy tells them, to the monitoring and to its own host alone."""

from __future__ import annotations

import http.client
import socket
from typing import Any

import pytest
from helpers.haproxy import behind, eventually, free_port, gateway, needs_haproxy, stubs

pytestmark = needs_haproxy
UP = 'haproxy_server_status{proxy="chat",server="s1",state="UP"} '


def own_address() -> str:
    """One of this machine that is not loopback. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.connect(("192.0.2.1", 9))
        found: str = asking.getsockname()[0]
        return found


def get(address: str, port: int, path: str = "/metrics") -> tuple[int, str]:
    connection = http.client.HTTPConnection(address, port, timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_it_tells_which_servers_are_up_and_nothing_else() -> None:
    port = free_port()
    given: dict[str, Any] = {
        "monitoring": {"watch-1": "192.0.2.9"},
        "metrics_port": port,
        "timeouts": {"interval": 1},
    }
    with stubs("s1") as made, gateway(servers=behind(made), **given) as api:
        assert f"{UP}1" in get("127.0.0.1", port)[1]
        made[0].healthy = False
        eventually(lambda: f"{UP}0" in get("127.0.0.1", port)[1], api)
        assert get("127.0.0.1", port, "/")[0] == 404
        assert "/metrics" not in api.log


def test_a_host_that_is_not_the_monitoring_is_cut_off() -> None:
    port, own = free_port(), own_address()
    given: dict[str, Any] = {"metrics_port": port}
    with stubs("s1") as made:
        with (
            gateway(servers=behind(made), monitoring={"watch-1": "192.0.2.9"}, **given),
            pytest.raises((ConnectionResetError, http.client.RemoteDisconnected)),
        ):
            get(own, port)
        with gateway(servers=behind(made), monitoring={"watch-1": own}, **given):
            assert get(own, port)[0] == 200


def test_without_monitoring_nothing_listens() -> None:
    port = free_port()
    with (
        stubs("s1") as made,
        gateway(servers=behind(made), metrics_port=port),
        pytest.raises(ConnectionRefusedError),
    ):
        get("127.0.0.1", port)
