# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files by which the kernel of a Spark tells its network: two ports of the adapter, each as twins, and the port for management."""

from __future__ import annotations

from pathlib import Path

MANAGEMENT = "enP7s7"
PORTS = {
    "enp1s0f0np0": "rocep1s0f0",
    "enP2p1s0f0np0": "roceP2p1s0f0",
    "enp1s0f1np1": "rocep1s0f1",
    "enP2p1s0f1np1": "roceP2p1s0f1",
}
"""{interface: RDMA device}, the twins of port 0 and then those of port 1."""
CABLED = ("enp1s0f0np0", "enP2p1s0f0np0")
ADDRESSES = {
    MANAGEMENT: "10.0.0.11",
    "enp1s0f0np0": "192.168.100.11",
    "enP2p1s0f0np0": "192.168.101.11",
}
NO_GID = ":".join(["0000"] * 8)


def put(root: Path, path: str, text: str) -> None:
    place = root / path.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text + "\n")


def mapped(address: str) -> str:
    """The GID of an IPv4 address, as the kernel writes it."""
    one, two, three, four = (int(part) for part in address.split("."))
    return f"0000:0000:0000:0000:0000:ffff:{one:02x}{two:02x}:{three:02x}{four:02x}"


def spark(root: Path) -> Path:
    """A cable at port 0, none at port 1. Each cabled interface has its address, jumbo frames and an entry of RoCE v2."""
    interface(root, MANAGEMENT, driver="r8127", speed="10000", mtu="1500")
    for name, device in PORTS.items():
        up = name in CABLED
        interface(root, name, mtu="9000" if up else "1500", speed="200000" if up else "-1", carrier=up)
        rdma(root, device, name, up=up)
        gids(root, device, name, ADDRESSES.get(name))
    interface(root, "lo", device=False, mtu="65536")
    interface(root, "docker0", device=False, mtu="1500")
    interface(root, "veth12ab34c", device=False, mtu="1500")
    put(root, "/proc/sys/kernel/osrelease", "6.17.0-1014-nvidia")
    put(root, "/sys/class/dmi/id/bios_date", "04/14/2026")
    return root


def interface(
    root: Path, name: str, mtu: str, speed: str = "-1", driver: str = "mlx5_core", carrier: bool = True, device: bool = True
) -> None:  # fmt: skip
    at = f"/sys/class/net/{name}"
    put(root, f"{at}/mtu", mtu)
    put(root, f"{at}/speed", speed)
    put(root, f"{at}/carrier", "1" if carrier else "0")
    if device:
        link(root, name)
        (root / f"sys/bus/pci/drivers/{driver}").mkdir(parents=True, exist_ok=True)
        place = root / f"sys/class/net/{name}/device/driver"
        place.unlink(missing_ok=True)
        place.symlink_to(root / f"sys/bus/pci/drivers/{driver}")


def link(root: Path, name: str, width: str = "4") -> None:
    at = f"/sys/class/net/{name}/device"
    put(root, f"{at}/current_link_width", width)
    put(root, f"{at}/max_link_width", "4")
    put(root, f"{at}/current_link_speed", "32.0 GT/s PCIe")
    put(root, f"{at}/max_link_speed", "32.0 GT/s PCIe")


def rdma(root: Path, device: str, name: str, up: bool = True) -> None:
    at = f"/sys/class/infiniband/{device}/ports/1"
    put(root, f"{at}/state", "4: ACTIVE" if up else "1: DOWN")
    put(root, f"{at}/rate", "200 Gb/sec (4X HDR)" if up else "40 Gb/sec (4X QDR)")
    (root / f"sys/class/infiniband/{device}/device/net/{name}").mkdir(parents=True, exist_ok=True)


def gids(root: Path, device: str, name: str, *addresses: str | None) -> None:
    """The table of a port: link-local by both protocols, then each address by both, and free places. They have no type and no interface."""
    at = f"/sys/class/infiniband/{device}/ports/1"
    held = ["fe80:0000:0000:0000:4abb:2dff:fe00:0001", *(mapped(each) for each in addresses if each)]
    entries = [(gid, kind) for gid in held for kind in ("IB/RoCE v1", "RoCE v2")]
    for index in range(8):
        if index < len(entries):
            put(root, f"{at}/gids/{index}", entries[index][0])
            put(root, f"{at}/gid_attrs/types/{index}", entries[index][1])
            put(root, f"{at}/gid_attrs/ndevs/{index}", name)
        else:
            put(root, f"{at}/gids/{index}", NO_GID)
