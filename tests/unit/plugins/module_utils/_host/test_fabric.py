from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host import fabric
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host.request import Request
from helpers.fabric import ADDRESSES, MANAGEMENT, PORTS, gids, interface, link, put, rdma, spark


def nothing(argv, timeout):
    raise AssertionError(f"{argv[0]} was started")


def look(root: Path, addresses: dict[str, str] | None = None):
    own = ADDRESSES if addresses is None else addresses
    return fabric.look(Request(root=root, run=nothing, addresses=lambda: dict(own)))


@pytest.fixture
def root(tmp_path) -> Path:
    return spark(tmp_path)


def test_a_spark_with_a_cable_at_port_0(root):
    seen = look(root, ADDRESSES | {"lo": "127.0.0.1", "docker0": "172.17.0.1"})
    assert set(seen["interfaces"]) == {MANAGEMENT, *PORTS, "docker0"}
    assert seen["interfaces"]["enp1s0f0np0"] == {
        "address": "192.168.100.11",
        "mtu": 9000,
        "up": True,
        "speed": 200000,
        "driver": "mlx5_core",
        "link": {"width": 4, "max_width": 4, "speed": 32.0, "max_speed": 32.0},
    }
    down = seen["interfaces"]["enP2p1s0f1np1"]
    assert (down["up"], down["speed"], down["address"]) == (False, None, None)
    assert seen["interfaces"]["docker0"]["driver"] is None and seen["interfaces"]["docker0"]["link"] is None
    assert [port["device"] for port in seen["rdma"]] == sorted(PORTS.values())
    assert {port["device"]: port for port in seen["rdma"]}["roceP2p1s0f0"] == {
        "device": "roceP2p1s0f0",
        "port": 1,
        "interface": "enP2p1s0f0np0",
        "state": "ACTIVE",
        "rate": 200.0,
        "gid_index": 3,
    }
    assert {port["device"]: port["state"] for port in seen["rdma"]}["rocep1s0f1"] == "DOWN"
    assert (seen["kernel"], seen["bios"]) == ("6.17.0-1014-nvidia", "2026-04-14")


def of(seen, device):
    (port,) = [port for port in seen["rdma"] if port["device"] == device]
    return port


def test_the_index_of_roce_v2_is_found_where_it_is(root):
    gids(root, "rocep1s0f0", "enp1s0f0np0", "10.9.9.9", ADDRESSES["enp1s0f0np0"])
    assert of(look(root), "rocep1s0f0")["gid_index"] == 5, "that of the address of the interface"
    assert of(look(root, {}), "rocep1s0f0")["gid_index"] == 3, "else the first of any IPv4 address"
    gids(root, "rocep1s0f0", "enp1s0f0np0")
    assert of(look(root), "rocep1s0f0")["gid_index"] is None, "an entry over IPv6 is none"


@pytest.mark.parametrize(("part", "text"), [("types", "IB/RoCE v1"), ("ndevs", "enp1s0f0np0.7")])
def test_an_entry_of_another_protocol_or_interface_does_not_count(root, part, text):
    put(root, f"/sys/class/infiniband/rocep1s0f0/ports/1/gid_attrs/{part}/3", text)
    assert of(look(root), "rocep1s0f0")["gid_index"] is None


def test_the_table_of_a_port_is_read_up_to_a_limit(root):
    at = "/sys/class/infiniband/rocep1s0f0/ports/1"
    gids(root, "rocep1s0f0", "enp1s0f0np0")
    for index in (fabric.MOST_GIDS - 1, fabric.MOST_GIDS):
        put(root, f"{at}/gids/{index}", "0000:0000:0000:0000:0000:ffff:c0a8:640b")
        put(root, f"{at}/gid_attrs/types/{index}", "RoCE v2")
        put(root, f"{at}/gid_attrs/ndevs/{index}", "enp1s0f0np0")
    assert of(look(root), "rocep1s0f0")["gid_index"] == fabric.MOST_GIDS - 1
    put(root, f"{at}/gids/{fabric.MOST_GIDS - 1}", "no address")
    assert of(look(root), "rocep1s0f0")["gid_index"] is None


def test_a_port_without_a_table_belongs_to_the_one_interface_of_its_device(root):
    gone = root / "sys/class/infiniband/rocep1s0f0/ports/1/gid_attrs/ndevs/0"
    gone.unlink()
    assert of(look(root), "rocep1s0f0")["interface"] == "enp1s0f0np0"
    rdma(root, "rocep1s0f0", "another")
    assert of(look(root), "rocep1s0f0")["interface"] is None, "which of two nobody says"


def test_a_link_that_is_narrower_than_it_could_be_is_seen(root):
    link(root, "enp1s0f0np0", width="2")
    assert look(root)["interfaces"]["enp1s0f0np0"]["link"] == {
        "width": 2, "max_width": 4, "speed": 32.0, "max_speed": 32.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    "text", ["", "\x00\x01", "9" * 5000, "nine", "-", "9000 bytes\nmore", "é9000", "0x10", "99999999999"]
)
def test_what_a_file_does_not_say_in_its_form_is_null(root, text):
    for path in (
        "/sys/class/net/enp1s0f0np0/mtu",
        "/sys/class/net/enp1s0f0np0/speed",
        "/sys/class/infiniband/rocep1s0f0/ports/1/state",
        "/sys/class/infiniband/rocep1s0f0/ports/1/rate",
        "/sys/class/infiniband/rocep1s0f0/ports/1/gids/3",
        "/sys/class/dmi/id/bios_date",
    ):
        put(root, path, text)
    put(root, "/proc/sys/kernel/osrelease", "6.17\x1b[2J")
    seen = look(root)
    own, port = seen["interfaces"]["enp1s0f0np0"], of(seen, "rocep1s0f0")
    assert (own["mtu"], own["speed"]) == (None, None)
    assert (seen["bios"], seen["kernel"]) == (None, None)
    assert (port["state"], port["rate"], port["gid_index"]) == (None, None, None)


def test_a_file_that_does_not_answer_is_null(root):
    """The kernel answers EINVAL for the carrier of an interface that is switched off, and for a free place in the table."""
    for path in ("class/net/enp1s0f0np0/carrier", "class/infiniband/rocep1s0f0/ports/1/gid_attrs/types/3"):
        file = root / "sys" / path
        file.unlink()
        file.mkdir()
    seen = look(root)
    assert seen["interfaces"]["enp1s0f0np0"]["up"] is False
    assert of(seen, "rocep1s0f0")["gid_index"] is None


def test_a_host_without_any_of_it_has_nothing(tmp_path):
    assert look(tmp_path) == {"interfaces": {}, "rdma": [], "kernel": None, "bios": None}


def test_an_interface_with_an_address_counts_without_hardware(tmp_path):
    interface(tmp_path, "eth0", mtu="1500", device=False)
    interface(tmp_path, "veth1", mtu="1500", device=False)
    assert set(look(tmp_path, {"eth0": "172.20.0.3"})["interfaces"]) == {"eth0"}


def test_hundreds_of_interfaces_do_not_push_out_those_with_hardware(root):
    own = {f"br{number:03}": "10.1.0.1" for number in range(300)}
    for name in own:
        interface(root, name, mtu="1500", device=False)
    seen = look(root, own)
    assert len(seen["interfaces"]) == fabric.MOST_INTERFACES and set(PORTS) < set(seen["interfaces"])


def test_names_that_no_kernel_gives_are_passed_over(root):
    strange = "eth0;reboot"
    interface(root, strange, mtu="1500")
    rdma(root, "a b", "enp1s0f0np0")
    put(root, "/sys/class/infiniband/rocep1s0f0/ports/x1/state", "4: ACTIVE")
    put(root, "/sys/class/infiniband/rocep1s0f0/ports/1/gid_attrs/ndevs/0", strange)
    seen = look(root)
    assert strange not in seen["interfaces"]
    assert sorted(port["device"] for port in seen["rdma"]) == sorted(PORTS.values())
    assert of(seen, "rocep1s0f0")["interface"] == "enp1s0f0np0"


def test_it_is_cheap(root):
    for device in PORTS.values():
        for index in range(8, fabric.MOST_GIDS):
            put(root, f"/sys/class/infiniband/{device}/ports/1/gids/{index}", ":".join(["0000"] * 8))
    started = time.process_time()
    look(root)
    assert time.process_time() - started < 1


def test_this_machine_can_be_looked_at():
    assert look(Path("/"))["kernel"] == os.uname().release
