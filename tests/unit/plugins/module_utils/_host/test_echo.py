from __future__ import annotations

import errno
import socket
import sys

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host import echo
from helpers import netns
from helpers.netns import needs_namespaces


def test_the_sum_of_an_echo_is_that_of_the_standard():
    assert echo.checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0x220D, "RFC 1071, section 3"
    assert echo.checksum(b"\x01") == 0xFEFF, "an odd byte is padded"
    assert echo.checksum(echo.packet(7, 1, b"\x02" * 9)) == 0, "over a whole packet with its sum"


def reply(
    mark: int = 7, number: int = 1, payload: bytes = b"\x02" * 56, kind: int = 0, options: int = 0
) -> bytes:
    request = echo.packet(mark, number, payload)
    return bytes([0x45 + options]) + bytes(19 + 4 * options) + bytes([kind]) + request[1:]


def test_only_the_reply_to_this_very_packet_counts():
    payload = b"\x02" * 56
    assert echo.echoed(reply(), 7, 1, payload)
    assert echo.echoed(reply(options=2), 7, 1, payload), "an IP header with options"
    for other in (
        reply(mark=8), reply(number=2), reply(payload=b"\x03" * 56), reply(payload=b"\x02" * 55), reply(kind=8),
        b"", b"\x45", bytes(20), bytes(28), b"\x4f" + bytes(30),
    ):  # fmt: skip
        assert not echo.echoed(other, 7, 1, payload)


class Wire:
    """A raw socket and the hosts behind it. The way takes packets of up to `fits` bytes, and its own interface of up to `mtu`."""

    def __init__(self, fits: int = 9000, mtu: int = 9000, there: bool = True) -> None:
        self.fits, self.mtu, self.there = fits, mtu, there
        self.options: list[tuple[int, int, object]] = []
        self.answers: list[tuple[bytes, tuple[str, int]]] = []
        self.bound = None

    def __call__(self, *kind):
        assert kind == (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        return self

    def __enter__(self):
        return self

    def __exit__(self, *problem):
        return None

    def setsockopt(self, level, name, value):
        self.options.append((level, name, value))

    def bind(self, address):
        self.bound = address

    def settimeout(self, seconds):
        assert 0 < seconds <= echo.PATIENCE

    def sendto(self, data, to):
        size = len(data) + 20
        if size > self.mtu:
            raise OSError(errno.EMSGSIZE, "Message too long")
        stranger = (bytes([0x45]) + bytes(19) + b"\x00" + data[1:], ("192.168.100.99", 0))
        self.answers = [stranger]
        if self.there and size <= self.fits:
            self.answers.append((bytes([0x45]) + bytes(19) + b"\x00" + data[1:], (to[0], 0)))

    def recvfrom(self, _size):
        if not self.answers:
            raise TimeoutError
        return self.answers.pop(0)


@pytest.mark.parametrize(
    ("wire", "seen"),
    [
        (Wire(), ""),
        (Wire(fits=1500), "it answers to 84 bytes, and to 9000 not"),
        (Wire(mtu=1500), "9000 bytes do not fit through enp1s0f0np0"),
        (Wire(there=False), "no answer by enp1s0f0np0 within 3 s"),
    ],
)
def test_a_way_for_large_frames(monkeypatch, wire, seen):
    monkeypatch.setattr(echo.socket, "socket", wire)
    said = echo.problem("192.168.100.11", "192.168.100.12", "enp1s0f0np0", 9000)
    assert said.startswith(seen) and bool(said) == bool(seen)
    assert (socket.IPPROTO_IP, 10, 2) in wire.options, "never in pieces"
    assert (socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"enp1s0f0np0") in wire.options
    assert wire.bound == ("192.168.100.11", 0)


def test_what_the_kernel_refuses_is_said(monkeypatch):
    wire = Wire()
    monkeypatch.setattr(wire, "bind", lambda address: (_ for _ in ()).throw(OSError(99, "Cannot assign")))
    monkeypatch.setattr(echo.socket, "socket", wire)
    assert echo.problem("10.0.0.1", "10.0.0.2", "eth0", 1500) == "eth0: Cannot assign"


ASK = f"import sys; sys.path[:0] = {sys.path!r}; from {echo.__name__} import problem; print(problem(*sys.argv[1:4], int(sys.argv[4])))"


@needs_namespaces
def test_real_packets_over_a_cable():
    with netns.hosts("one", "other") as hosts:
        one, other = hosts["one"], hosts["other"]
        netns.join(one, other, "cable", "7")

        def ask(mtu: int) -> str:
            return one.do(sys.executable, "-c", ASK, "10.0.7.1", "10.0.7.2", "cable", str(mtu)).strip()

        assert ask(1500) == ""
        assert ask(9000) == "9000 bytes do not fit through cable, or another part of the way"
        one.do("ip", "link", "set", "cable", "mtu", "9000")
        assert ask(9000) == "it answers to 84 bytes, and to 9000 not"
        other.do("ip", "link", "set", "eth0", "mtu", "9000")
        assert ask(9000) == ""
        other.do("ip", "link", "set", "eth0", "down")
        assert ask(9000).startswith(("no answer by cable", "cable: "))
