# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a frame of a certain size reaches another host in one piece: ICMP echo that may not be fragmented. Needs root, and no program."""

from __future__ import annotations

import errno
import os
import socket
import struct
import time

IP_MTU_DISCOVER, IP_PMTUDISC_DO = 10, 2
"""ip(7): never fragment, and refuse what does not fit."""
ECHO, ECHO_REPLY = 8, 0
IP_HEADER, ICMP_HEADER = 20, 8
SMALL = 84
"""Bytes of a packet that passes everywhere."""
TRIES = 3
PATIENCE = 1.0
"""Seconds for one answer. Between Sparks it takes far less than a millisecond."""


def problem(address: str, peer: str, interface: str, mtu: int) -> str:
    """Why a packet of `mtu` bytes does not reach `peer` and come back in one piece; empty if it does.

    :param address: of this host, from which it is sent
    :param interface: by which it leaves
    """
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
            raw.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
            raw.bind((address, 0))
            if not any(_answers(raw, peer, SMALL, number) for number in range(TRIES)):
                return f"no answer by {interface} within {PATIENCE * TRIES:g} s"
            if any(_answers(raw, peer, mtu, number) for number in range(TRIES, 2 * TRIES)):
                return ""
            return f"it answers to {SMALL} bytes, and to {mtu} not"
    except OSError as error:
        if error.errno == errno.EMSGSIZE:
            return f"{mtu} bytes do not fit through {interface}, or another part of the way"
        return f"{interface}: {error.strerror or error}"


def _answers(raw: socket.socket, peer: str, size: int, number: int) -> bool:
    mark = os.getpid() & 0xFFFF
    # A payload that differs from packet to packet tells a late answer from the one that is waited for.
    payload = bytes([number + 1]) * (size - IP_HEADER - ICMP_HEADER)
    raw.sendto(packet(mark, number, payload), (peer, 0))
    deadline = time.monotonic() + PATIENCE
    while (left := deadline - time.monotonic()) > 0:
        raw.settimeout(left)
        try:
            answer, (source, _port) = raw.recvfrom(65535)
        except TimeoutError:
            return False
        if source == peer and echoed(answer, mark, number, payload):
            return True
    return False


def packet(mark: int, number: int, payload: bytes) -> bytes:
    """An echo request (RFC 792)."""
    head = struct.pack("!BBHHH", ECHO, 0, 0, mark, number)
    return struct.pack("!BBHHH", ECHO, 0, checksum(head + payload), mark, number) + payload


def checksum(data: bytes) -> int:
    """The ones' complement sum of 16-bit words (RFC 1071)."""
    words = struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2))
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def echoed(answer: bytes, mark: int, number: int, payload: bytes) -> bool:
    """Whether a packet, with its IP header, is the reply to that request."""
    if len(answer) < IP_HEADER:
        return False
    body = answer[(answer[0] & 0x0F) * 4 :]
    if len(body) < ICMP_HEADER or body[ICMP_HEADER:] != payload:
        return False
    kind, _code, _sum, seen_mark, seen_number = struct.unpack("!BBHHH", body[:ICMP_HEADER])
    return (kind, seen_mark, seen_number) == (ECHO_REPLY, mark, number)
