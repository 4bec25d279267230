from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host import netplan
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host.netplan import NetplanError
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host.request import Request
from helpers.fabric import ADDRESSES, MANAGEMENT, put, spark

TWINS = {"enp1s0f0np0": "192.168.100.11/24", "enP2p1s0f0np0": "192.168.101.11/24"}
SSH = "10.0.0.5 51000 10.0.0.11 22"
ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
enP7s7\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\t0\t0\t0
enp1s0f0np0\t0064A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0"""


@pytest.fixture
def request_(tmp_path) -> Request:
    put(spark(tmp_path), "/proc/net/route", ROUTES)
    put(
        tmp_path,
        "/etc/netplan/50-cloud-init.yaml",
        "network: {version: 2, ethernets: {enP7s7: {dhcp4: true}}}",
    )
    return Request(root=tmp_path, addresses=lambda: dict(ADDRESSES))


def test_the_file_names_these_interfaces_and_nothing_else():
    written = yaml.safe_load(netplan.text(netplan.wanted(TWINS), 9000))
    assert written["network"]["version"] == 2 and set(written["network"]) == {"version", "ethernets"}
    assert written["network"]["ethernets"] == {
        name: {"addresses": [address], "dhcp4": False, "dhcp6": False, "mtu": 9000, "optional": True}
        for name, address in TWINS.items()
    }
    assert netplan.text([], 9000) == ""


@pytest.mark.parametrize(
    ("addresses", "words"),
    [
        ({"enp1s0f0np0: {}\n": "192.168.100.11/24"}, "the name of an interface"),
        ({"enp1s0f0np0": "192.168.100.11"}, "with its prefix"),
        ({"enp1s0f0np0": "8.8.8.8/24"}, "a private IPv4 address"),
        ({"enp1s0f0np0": "10.0.0.1/4"}, "with its prefix"),
        ({"enp1s0f0np0": "fd00::1/64"}, "IPv4"),
        ({"enp1s0f0np0": None}, "IPv4"),
        ({"enp1s0f0np0": "192.168.100.11/24", "enP2p1s0f0np0": "192.168.100.12/25"}, "a subnet of its own"),
    ],
)
def test_what_cannot_be_an_address_is_refused(addresses, words):
    with pytest.raises(NetplanError, match=words):
        netplan.wanted(addresses)


def test_the_cable_between_sparks_may_be_set(request_):
    netplan.check(netplan.wanted(TWINS), request_, SSH)


def refused(request_: Request, name: str, words: str, connection: str = SSH) -> None:
    with pytest.raises(NetplanError, match=words):
        netplan.check(netplan.wanted({name: "192.168.100.11/24"}), request_, connection)


def test_the_interface_of_the_default_route_is_never_touched(request_, tmp_path):
    refused(request_, MANAGEMENT, "seen enP7s7, which has the default route", connection="")
    put(tmp_path, "/proc/net/route", "")
    put(
        tmp_path,
        "/proc/net/ipv6_route",
        f"{'0' * 32} 00 {'0' * 32} 00 {'f' * 32} 00000064 1 0 00000003 enP7s7",
    )
    refused(request_, MANAGEMENT, "the default route", connection="")


def test_the_interface_of_this_connection_is_never_touched(request_):
    refused(request_, "enp1s0f0np0", "which has this connection", "10.0.0.5 51000 192.168.100.11 22")


def test_an_interface_that_is_not_there_or_is_in_another_file_is_refused(request_, tmp_path):
    refused(request_, "enp9s9", "expected enp9s9 among the interfaces with hardware, seen enP2p1s0f0np0, ")
    refused(request_, "docker0", "among the interfaces with hardware")
    put(tmp_path, "/etc/netplan/40-cx7.yaml", 'network:\n  ethernets:\n    "enp1s0f0np0":\n      dhcp4: true')
    refused(request_, "enp1s0f0np0", "seen it in /etc/netplan/40-cx7.yaml")
    put(tmp_path, f"/etc/netplan/{netplan.NAME}", "network:\n  ethernets:\n    enp1s0f0np0: {}")
    (tmp_path / "etc/netplan/40-cx7.yaml").unlink()
    netplan.check(netplan.wanted(TWINS), request_, SSH)


def test_the_connection_is_that_of_whoever_started_the_process(request_, tmp_path: Path):
    for process, parent, environment in (
        (90, 80, "A=1\0"),
        (80, 70, f"B=2\0SSH_CONNECTION={SSH}\0C=3"),
        (70, 1, ""),
    ):
        put(tmp_path, f"/proc/{process}/status", f"Name:\tx\nPPid:\t{parent}")
        (tmp_path / f"proc/{process}/environ").write_text(environment)
    assert netplan.connection_of(request_, 90) == SSH
    assert netplan.connection_of(request_, 70) == ""
    put(tmp_path, "/proc/70/status", "Name:\tx\nPPid:\t90")
    (tmp_path / "proc/80/environ").write_text("")
    assert netplan.connection_of(request_, 90) == "", "a circle ends"
