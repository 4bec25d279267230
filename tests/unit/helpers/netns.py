# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts that are network namespaces of the kernel, joined by cables, with real packets and real rules.

A Host starts every program by nsenter, inside its own network and mount namespace, and refuses where that is the test's own: so no rule
of this machine can be read or changed. Its /run is its own, too, and with it the lock of the rules.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pytest
from helpers.whole import needs

LIFE = 600
"""Seconds after which a host ends that a killed test has left behind."""
PATIENCE = 20.0
SERVER = """
import socket, sys, threading
def echo(peer):
    while sent := peer.recv(99):
        peer.sendall(sent)
server = socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True)
print("ready", flush=True)
while True:
    threading.Thread(target=echo, args=(server.accept()[0],), daemon=True).start()
"""
CLIENT = """
import socket, sys
try:
    peer = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=float(sys.argv[3]))
except OSError as error:
    print("timed out" if isinstance(error, TimeoutError) else error, flush=True)
    sys.exit()
print("connected", flush=True)
for line in sys.stdin:
    peer.sendall(line.encode())
    try:
        print(peer.recv(99).decode().strip(), flush=True)
    except TimeoutError:
        print("timed out", flush=True)
"""


def inode(pid: int | str = "self") -> int:
    return os.stat(f"/proc/{pid}/ns/net").st_ino


def _usable() -> str:
    """Why there are none here; empty if there are."""
    missing = [name for name in ("unshare", "nsenter", "ip", "iptables") if not shutil.which(name, path=PATH)]
    if missing:
        return f"no {', '.join(missing)} here"
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "true"], capture_output=True, text=True, check=False
    )
    return tried.stderr.strip()


PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
WHY_NOT = _usable()
needs_namespaces = (
    needs(WHY_NOT) if os.geteuid() == 0 else pytest.mark.skip("only root makes network namespaces")
)


@dataclass
class Host:
    holder: subprocess.Popen[str]
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def _inside(self, *argv: str) -> list[str]:
        pid = self.holder.pid
        assert inode(pid) != inode(), "this would be the machine's own network"
        return ["nsenter", f"--target={pid}", "--net", "--mount", "--", *argv]

    def run(self, *argv: str, given: str = "", path: str = PATH) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._inside("env", "-i", f"PATH={path}", *argv),
            input=given,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def do(self, *argv: str, given: str = "") -> str:
        done = self.run(*argv, given=given)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, *argv: str) -> subprocess.Popen[str]:
        made = subprocess.Popen(self._inside(*argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.started.append(made)
        return made

    def serve(self, port: int) -> None:
        """A server on all addresses that sends back what it gets."""
        assert _line(self.start(sys.executable, "-c", SERVER, str(port)).stdout) == "ready"

    def connect(self, address: str, port: int, patience: float = 0.7) -> Connection:
        return Connection(self.start(sys.executable, "-c", CLIENT, address, str(port), str(patience)))

    def reaches(self, address: str, port: int) -> str:
        """'connected', 'timed out', or what else there is to say"""
        return self.connect(address, port).said

    def stop(self) -> None:
        for process in (*self.started, self.holder):
            process.kill()
            process.communicate()


class Connection:
    def __init__(self, client: subprocess.Popen[str]) -> None:
        self.client = client
        self.said = _line(client.stdout)

    def answers(self, text: str) -> bool:
        assert self.client.stdin
        self.client.stdin.write(f"{text}\n")
        self.client.stdin.flush()
        return _line(self.client.stdout) == text


def _line(stream: IO[str] | None) -> str:
    assert stream
    return stream.readline().strip()


@contextlib.contextmanager
def hosts(*names: str) -> Iterator[dict[str, Host]]:
    """By name, each with its loopback up and no cable."""
    found: dict[str, Host] = {}
    try:
        for name in names:
            script = f"mount -t tmpfs none /run && echo ready && exec sleep {LIFE}"
            command = ["unshare", "--net", "--mount", "sh", "-c", script]
            found[name] = Host(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            assert _line(found[name].holder.stdout) == "ready"
            found[name].do("ip", "link", "set", "lo", "up")
        yield found
    finally:
        for host in found.values():
            host.stop()


def join(one: Host, other: Host, name: str, network: str) -> None:
    """A cable between two hosts. `one` has address 1 of 10.<network>.0/24 and fd00:<network>::/64, the other 2."""
    one.do("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(other.holder.pid))
    for host, link, number in ((one, name, 1), (other, "eth0", 2)):
        host.do("ip", "address", "add", f"10.0.{network}.{number}/24", "dev", link)
        host.do("ip", "address", "add", f"fd00:{network}::{number}/64", "dev", link, "nodad")
        host.do("ip", "link", "set", link, "up")
    other.do("ip", "route", "add", "default", "via", f"10.0.{network}.1")


def programs(folder: Path, backend: str) -> Path:
    """A folder for a PATH of its own, with the iptables of one backend and nothing else."""
    multi = Path(f"/usr/sbin/xtables-{backend}-multi")
    if not multi.exists():
        pytest.skip(f"no {multi} here")
    folder.mkdir()
    for family in ("iptables", "ip6tables"):
        for part in ("", "-save", "-restore"):
            (folder / f"{family}{part}").symlink_to(multi)
    return folder
