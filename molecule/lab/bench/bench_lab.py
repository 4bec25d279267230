# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts of the benchmark: runs things on them, measures their links, and tells what the machine was busy with."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import ansible

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
INVENTORY = HERE / "inventory"
SUBNET = "172.31.250"
FIRST_ADDRESS = 110
PYTHON = "/opt/sparkfleet/venv/bin/python"
HOME = "/opt/bench"


class BenchError(Exception):
    """Something did not run; the text says what, its output, and what to do."""


@dataclass(frozen=True)
class Host:
    number: int

    @property
    def name(self) -> str:
        return f"bench-{self.number}"

    @property
    def address(self) -> str:
        return f"{SUBNET}.{FIRST_ADDRESS + self.number}"

    @property
    def container(self) -> str:
        return f"sparkfleet-lab-{self.name}"

    def run(self, *argv: str, user: str = "root", stdin: str = "") -> str:
        """Standard output of a command on the host.

        :raises BenchError: it failed
        """
        done = subprocess.run(
            ["docker", "exec", "-i", "-u", user, "-e", f"PYTHONPATH={HOME}", self.container, *argv],
            input=stdin,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip())[-1500:]
            raise BenchError(
                f"{self.name}: expected `{' '.join(argv)[:200]}` to succeed, seen {done.returncode}: {said}"
            )
        return done.stdout

    def shell(self, script: str, user: str = "root") -> str:
        return self.run("bash", "-euo", "pipefail", "-c", script, user=user)

    def helper(self, *argv: str, stdin: Any = None) -> str:
        return self.run(PYTHON, f"{HOME}/bench_module.py", *argv, stdin=json.dumps(stdin))

    def module(self, name: str, /, **options: Any) -> dict[str, Any]:
        """Result of a module of the collection."""
        result: dict[str, Any] = json.loads(self.helper("module", name, stdin=options))
        return result

    def sent(self) -> int:
        """Bytes that left through the link so far, with their headers."""
        return int(self.run("cat", "/sys/class/net/eth0/statistics/tx_bytes"))


def playbook(path: Path, *argv: str, inventory: Path = INVENTORY) -> None:
    """:raises BenchError: the playbook failed"""
    done = subprocess.run(
        ["ansible-playbook", "-i", str(inventory), str(path), *argv],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise BenchError(
            f"{path.name}: expected it to succeed, seen {done.returncode}: {done.stdout[-3000:]}{done.stderr[-500:]}"
        )


def deployed(inventory: Path, what: str, measure: Callable[[], bool]) -> int:
    """Exit status of a benchmark of a whole fleet: makes its hosts, deploys them as a user does, measures, and removes them (KEEP=1 leaves
    them).

    :param what: runs on this machine meanwhile
    :param measure: prints what it sees, and says whether the goal is met
    """
    try:
        playbook(HERE.parent / "create.yml", inventory=inventory)
        try:
            playbook(ROOT / "playbooks/site.yml", inventory=inventory)
            print(f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC, {os.cpu_count()} cores for {what}")
            met = measure()
        finally:
            if not os.environ.get("KEEP"):
                playbook(HERE.parent / "destroy.yml", inventory=inventory)
    except BenchError as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    return 0 if met else 1


def create() -> None:
    playbook(HERE.parent / "create.yml")


def destroy() -> None:
    playbook(HERE.parent / "destroy.yml")


def prepare(hosts: Sequence[Host]) -> None:
    """Give the hosts what the ways need: modules and their Python, and ssh from each host to each."""
    playbook(HERE / "prepare.yml")
    code = _code()
    with tempfile.TemporaryDirectory() as folder:
        key = Path(folder) / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        private, public = key.read_text(), Path(f"{key}.pub").read_text()
    for host in hosts:
        host.run("mkdir", "-p", HOME)
        subprocess.run(["docker", "cp", "-", f"{host.container}:{HOME}"], input=code, check=True)
        host.run("bash", "-c", "umask 077; mkdir -p ~/.ssh; cat > ~/.ssh/bench", user="spark", stdin=private)
        host.run("bash", "-c", "cat >> ~/.ssh/authorized_keys", user="spark", stdin=public)


def _code() -> bytes:
    """A tar of the modules, what they import, and bench_module.py."""
    buffer = io.BytesIO()
    core = Path(ansible.__file__).parent
    plugins = "ansible_collections/sparkfleet/vllm/plugins"

    def python_only(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return member if member.isdir() or member.name.endswith(".py") else None

    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(HERE / "bench_module.py", "bench_module.py")
        for name in ("__init__.py", "_vendor", "release.py", "module_utils"):
            tar.add(core / name, f"ansible/{name}", filter=python_only)
        for name in ("modules", "module_utils"):
            tar.add(ROOT / "plugins" / name, f"{plugins}/{name}", filter=python_only)
    return buffer.getvalue()


# -- links


def limit(hosts: Sequence[Host], mbit: int) -> None:
    """Limit what every host sends and receives to `mbit` Mbit/s. Only outgoing traffic of a device can be shaped, so incoming
    traffic passes through an ifb device.
    """
    # As much as a switch's port would hold: 5 ms in a burst, 50 ms in the queue.
    shape = f"tbf rate {mbit}mbit burst {max(65536, mbit * 625)} limit {max(524288, mbit * 6250)}"
    for host in hosts:
        host.shell(
            f"""
            [ -e /sys/class/net/ifb0 ] || ip link add ifb0 type ifb
            ip link set ifb0 up
            tc qdisc replace dev ifb0 root {shape}
            tc qdisc replace dev eth0 root {shape}
            tc qdisc del dev eth0 ingress 2>/dev/null || true
            tc qdisc add dev eth0 ingress
            tc filter add dev eth0 parent ffff: protocol all u32 match u32 0 0 action mirred egress redirect dev ifb0
            """
        )


def unlimit(hosts: Sequence[Host]) -> None:
    for host in hosts:
        host.shell(
            "tc qdisc del dev eth0 root 2>/dev/null || true; tc qdisc del dev eth0 ingress 2>/dev/null || true"
        )


# -- the machine


@dataclass
class Measured:
    seconds: float = 0.0
    busy: float = 0.0
    """Share of all cores of the machine, 0 to 1."""
    sent: int = 0
    """Bytes that the first host sent."""


@contextmanager
def measured(first: Host) -> Iterator[Measured]:
    """Measure seconds (unless the block sets them), CPU, and what `first` sent."""
    result = Measured()
    sent, (busy, total), began = first.sent(), _cpu(), time.time()
    yield result
    result.seconds = result.seconds or time.time() - began
    later, all_later = _cpu()
    result.busy = (later - busy) / max(1, all_later - total)
    result.sent = first.sent() - sent


def _cpu() -> tuple[int, int]:
    """Ticks in which the cores were busy, and all ticks."""
    ticks = [int(text) for text in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


def busy(seconds: float = 5.0) -> float:
    """Share of all cores that is busy outside the measurements."""
    before, total = _cpu()
    time.sleep(seconds)
    after, all_after = _cpu()
    return (after - before) / max(1, all_after - total)


def machine() -> str:
    facts = Path("/proc/cpuinfo").read_text()
    models = [line.split(":", 1)[1].strip() for line in facts.splitlines() if line.startswith("model name")]
    control = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    return f"{os.cpu_count()} cores ({models[0] if models else os.uname().machine}), TCP {control}"
