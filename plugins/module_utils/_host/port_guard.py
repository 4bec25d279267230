# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which packet filter rules keep a server's ports for some sources, and how those of the kernel differ. Pure.

The rules are in a chain that PREROUTING of the table raw calls first. That table comes before Docker's DNAT and before connection
tracking, so the rules see the port that a client asked for, with published ports and with the host's network alike. Each DROP names one
guarded port: no rule, and no part of a file of rules, can close another one, such as that of ssh.
"""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import guard
from .guard import Network

FAMILIES = {4: "iptables", 6: "ip6tables"}
"""Its programs, by version of IP."""
CHAIN = "SPARKFLEET"
JUMP = f"-A PREROUTING -j {CHAIN}"
DIRECTORY = Path("/etc/sparkfleet/port-guard")
UNIT = "sparkfleet-port-guard.service"
WAIT = 10
"""Seconds to wait for others that change rules (the xtables lock)."""
_TO_CHAIN = (["-j", CHAIN], ["-g", CHAIN])

# At boot the chain has its rules before anything jumps to it. A start by hand, later, adds no second jump.
_COMMANDS = """\
ExecStart={program}-restore --noflush --wait={wait} {path}
ExecStart=sh -c '{program} -w {wait} -t raw -C {jump} 2>/dev/null || {program} -w {wait} -t raw -I {jump}'
"""


def rules(
    guarded: Sequence[int],
    allowed: Sequence[Network],
    watched: Sequence[int] = (),
    watchers: Sequence[Network] = (),
) -> tuple[str, ...]:
    """The rules of one version of IP, as :func:`read` shows those of the kernel.

    Only what is for this host is dropped. What it routes for others, such as a container's request to a foreign server, passes.

    :param watched: ports for the watchers alone, who pass at all ports
    """
    return (
        f":{CHAIN}",
        JUMP,
        f"-A {CHAIN} -i lo -j RETURN",
        *map(_passes, watchers),
        *map(_dropped, watched),
        *map(_passes, allowed),
        *map(_dropped, guarded),
    )


def _passes(network: Network) -> str:
    return f"-A {CHAIN} -s {network} -j RETURN"


def _dropped(port: int) -> str:
    return f"-A {CHAIN} -p tcp -m tcp --dport {port} -m addrtype --dst-type LOCAL -j DROP"


@dataclass(frozen=True)
class Table:
    """What the kernel's table raw has of ours, for one version of IP."""

    shown: tuple[str, ...] = ()
    """The chain, all that is before the last jump to it, and its rules. Empty without any of them."""
    jumps: tuple[str, ...] = ()
    """Rules of other chains that lead to it."""

    @property
    def exists(self) -> bool:
        return f":{CHAIN}" in self.shown


def read(saved: str) -> Table:
    """:param saved: what ``iptables-save -t raw`` prints"""
    lines = [_plain(line) for line in saved.splitlines()]
    others = [line for line in lines if line.startswith("-A ") and not _in_chain(line)]
    leading = [number for number, line in enumerate(others, 1) if line.split()[-2:] in _TO_CHAIN]
    before = others[: leading[-1]] if leading else []
    chain = [f":{CHAIN}"] if any(line.startswith(f":{CHAIN} ") for line in lines) else []
    return Table((*chain, *before, *filter(_in_chain, lines)), tuple(others[at - 1] for at in leading))


def guarded(shown: Iterable[str]) -> set[int]:
    """The ports that rules drop.

    :param shown: as :func:`rules` and :func:`read` give them
    """
    words = [line.split() for line in shown if _in_chain(line)]
    found = {
        line[line.index("--dport") + 1] for line in words if line[-1] == "DROP" and "--dport" in line[:-2]
    }
    return {int(port) for port in found if port.isdecimal()}


def _in_chain(line: str) -> bool:
    return line.startswith(f"-A {CHAIN} ")


def _plain(line: str) -> str:
    """The line with its source as Python writes it: of some IPv6 addresses there are several spellings."""
    before, option, after = line.partition(" -s ")
    source, space, rest = after.partition(" ")
    try:
        return f"{before}{option}{ipaddress.ip_network(source)}{space}{rest}"
    except ValueError:
        return line


def transaction(wanted: Sequence[str], seen: Table) -> str:
    """What ``iptables-restore --noflush`` does all at once to get from one to the other.

    :param wanted: as :func:`rules` gives it; empty for no rules
    """
    lines = ["*raw"]
    if wanted:
        lines += [f":{CHAIN} - [0:0]", *filter(_in_chain, wanted)]
    if seen.jumps != (JUMP,) or seen.shown[:2] != tuple(wanted[:2]):
        lines += [f"-D{jump[2:]}" for jump in seen.jumps]
        lines += ["-I PREROUTING 1" + JUMP.partition("PREROUTING")[2]] if wanted else []
    if not wanted and seen.exists:
        lines += [f"-F {CHAIN}", f"-X {CHAIN}"]
    return "\n".join([*lines, "COMMIT", ""])


def path(version: int) -> Path:
    """Where the rules are kept for the next boot."""
    return DIRECTORY / f"rules.v{version}"


def files(wanted: Mapping[int, Sequence[str]], units: Path) -> dict[Path, str]:
    """The files that bring the rules back at boot."""
    kept = {
        path(version): "\n".join(["*raw", f":{CHAIN} - [0:0]", *filter(_in_chain, lines), "COMMIT", ""])
        for version, lines in wanted.items()
    }
    commands = "".join(
        _COMMANDS.format(
            program=FAMILIES[version],
            path=shlex.quote(str(path(version))),
            wait=WAIT,
            jump=JUMP.removeprefix("-A "),
        )
        for version in wanted
    )
    return kept | {units / UNIT: guard.service("port_guard", "Keep vLLM's port for the gateways", commands)}


def named(version: int) -> str:
    """What the rules of a version of IP are called."""
    return f"{FAMILIES[version]}, table raw"
