# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which rules of nftables keep the ports of a unit for its members, and how those of the kernel read. Pure.

The servers of a unit use the host's network, so what is for them comes to the host's own sockets: it passes the hook input, and neither
a bridge nor Docker's DNAT. Each chain of that hook is asked, whatever another has accepted, so no rule of somebody else opens a port.

A rule is the command of nft that makes it. What the kernel has is written as the commands that would make it, and so compared.
"""

from __future__ import annotations

import ipaddress
import json
import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .._common import json_text
from . import guard
from .guard import SSH, GuardError, Network

FAMILY = "inet"
"""IPv4 and IPv6."""
TABLE = f"{FAMILY} sparkfleet_unit"
CHAIN = f"{TABLE} input"
HOOK = f"add chain {CHAIN} {{ type filter hook input priority -10; policy accept; }}"
SETS = {4: ("ip", "members_v4", "ipv4_addr"), 6: ("ip6", "members_v6", "ipv6_addr")}
"""The set of the members, by version of IP: what a packet calls it, name, type."""
DIRECTORY = Path("/etc/sparkfleet/unit-guard")
FILE = "rules.nft"
UNIT = "sparkfleet-unit-guard.service"
# That service empties the packet filter when it starts.
_AFTER = "local-fs.target nftables.service"
_LIMIT = 1024 * 1024
"""Bytes. The table of sixteen members has five kilobytes."""
_WORD = re.compile(r"[A-Za-z0-9_.:/@-]{1,64}")
_MANY = 65536
"""More numbers than there are ports."""
Interval = tuple[int, int]
"""First and last port."""


class TableError(Exception):
    """What nft answers is not what it should; says what was expected, what was seen, and what to do."""


def members(given: Iterable[str]) -> dict[int, list[str]]:
    """The addresses of each version of IP, sorted, each once.

    :raises GuardError: one is none, or could not be a member's
    """
    return {version: list(map(_address, found)) for version, found in guard.sources(given).items()}


def _address(network: Network) -> str:
    if network.prefixlen != network.max_prefixlen:
        raise GuardError("members", "addresses", str(network), "name each member by its own")
    return str(network.network_address)


def closed(ports: Iterable[int], ephemeral: Interval, left_out: Collection[int]) -> list[Interval]:
    """What is for members alone, in order, with a gap between each two.

    :param ephemeral: from where the kernel takes the port of a socket that names none, as those of NCCL do
    :param left_out: ports of others. Like that of ssh they are never closed
    :raises GuardError: a port of the unit is that of another
    """
    own = guard.ports(ports, "vllm_serve_unit_port, vllm_serve_master_port")
    if both := sorted(set(own).intersection(left_out)):
        raise GuardError(
            "ports",
            "ports that the unit alone has",
            both,
            "choose others (vllm_serve_unit_port, vllm_serve_master_port)",
        )
    numbers = {*range(ephemeral[0], ephemeral[1] + 1)}.difference(left_out, [SSH]).union(own)
    first = sorted(number for number in numbers if number - 1 not in numbers)
    last = sorted(number for number in numbers if number + 1 not in numbers)
    return list(zip(first, last, strict=True))


def rules(addresses: Mapping[int, Sequence[str]], intervals: Sequence[Interval]) -> tuple[str, ...]:
    """The table, as :func:`read` shows that of the kernel.

    :param addresses: of the members, as :func:`members` gives them
    :param intervals: as :func:`closed` gives them
    """
    return (
        f"add table {TABLE}",
        *(_set(name, kind, addresses[version]) for version, (_packet, name, kind) in SETS.items()),
        HOOK,
        f"add rule {CHAIN} iif lo accept",
        # Also what the host itself began: its own end of such a connection has a port of this range.
        f"add rule {CHAIN} ct state established,related accept",
        *(f"add rule {CHAIN} {packet} saddr @{name} accept" for packet, name, _kind in SETS.values()),
        f"add rule {CHAIN} tcp dport {_braces(map(_interval, intervals))} drop",
    )


def drops(line: str) -> bool:
    return line.startswith(f"add rule {CHAIN} tcp dport ") and line.endswith(" drop")


def _set(name: str, kind: str, elements: Sequence[str]) -> str:
    inside = [f"type {kind};", *([f"elements = {_braces(elements)};"] if elements else [])]
    return f"add set {TABLE} {name} {{ {' '.join(inside)} }}"


def _braces(words: Iterable[str]) -> str:
    return f"{{ {', '.join(words)} }}"


def _interval(interval: Interval) -> str:
    first, last = interval
    return str(first) if first == last else f"{first}-{last}"


def transaction(wanted: Sequence[str]) -> str:
    """What nft does all at once to make the table anew, or to remove it.

    :param wanted: as :func:`rules` gives it; empty for no table
    """
    # Only a table that there is can be deleted.
    return "".join(f"{line}\n" for line in (f"add table {TABLE}", f"delete table {TABLE}", *wanted))


def files(wanted: Sequence[str], units: Path) -> dict[Path, str]:
    """The files that bring the rules back at boot."""
    path = DIRECTORY / FILE
    command = f"ExecStart=nft -f {shlex.quote(str(path))}\n"
    text = guard.service("unit_guard", "Keep the ports of a unit for its members", command, _AFTER)
    return {path: transaction(wanted), units / UNIT: text}


def there(text: str) -> bool:
    """:param text: what ``nft -j list tables inet`` prints
    :raises TableError: it is something else
    """
    family, name = TABLE.split()
    tables = [body for kind, body in _objects(text) if kind == "table"]
    return any((each.get("family"), each.get("name")) == (family, name) for each in tables)


def read(text: str) -> tuple[str, ...]:
    """The commands that would make the table; whatever this collection does not write is in them as JSON.

    :param text: what ``nft -j list table`` prints
    :raises TableError: it is something else
    """
    found: dict[str, list[str]] = {kind: [] for kind in ("table", "set", "chain", "", "rule")}
    for kind, body in _objects(text):
        command = {"table": _table, "set": _kernel_set, "chain": _chain, "rule": _rule}.get(kind, _nothing)(
            body
        )
        found[kind if command else ""].append(command or json.dumps({kind: body}, sort_keys=True))
    # Rules have an order. Of the others some kernels have another one than some programs.
    return tuple(
        line for kind, lines in found.items() for line in (lines if kind == "rule" else sorted(lines))
    )


def _objects(text: str) -> list[tuple[str, dict[str, Any]]]:
    try:
        answer = json_text.read(text, "the answer of nft", limit=_LIMIT)
    except json_text.JsonError as error:
        raise _strange(error) from None
    objects = answer.get("nftables") if isinstance(answer, dict) else None
    if not isinstance(objects, list) or not all(
        isinstance(each, dict) and len(each) == 1 for each in objects
    ):
        raise _strange(f"{text:.80}")
    pairs = [pair for each in objects for pair in each.items() if pair[0] != "metainfo"]
    if not all(isinstance(body, dict) for _kind, body in pairs):
        raise _strange(f"{text:.80}")
    return [(kind, {key: value for key, value in body.items() if key != "handle"}) for kind, body in pairs]


def _strange(seen: object) -> TableError:
    return TableError(
        f"expected tables of nftables as JSON, seen: {seen}; do: nft -j list table {TABLE}, and see whether another nft is on the PATH"
    )


def _nothing(body: Mapping[str, Any]) -> None:
    return None


def _fields(body: Mapping[str, Any], *names: str) -> list[str] | None:
    """The values of these names as words; None unless there are these names and no others, with words and numbers alone."""
    values = [_word(body.get(name)) for name in names]
    return [word for word in values if word] if set(body) == set(names) and all(values) else None


def _word(value: Any) -> str | None:
    if isinstance(value, str):
        return value if _WORD.fullmatch(value) else None
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _table(body: Mapping[str, Any]) -> str | None:
    words = _fields(body, "family", "name")
    return f"add table {' '.join(words)}" if words else None


def _kernel_set(body: Mapping[str, Any]) -> str | None:
    elements = body.get("elem", [])
    words = _fields({key: body[key] for key in body if key != "elem"}, "family", "table", "name", "type")
    if words is None or f"{words[0]} {words[1]}" != TABLE or not isinstance(elements, list):
        return None
    if not all(isinstance(each, str) for each in elements):
        return None
    try:
        addresses = sorted(map(ipaddress.ip_address, elements), key=int)
    except ValueError:
        return None
    return _set(words[2], words[3], list(map(str, addresses)))


def _chain(body: Mapping[str, Any]) -> str | None:
    words = _fields(body, "family", "table", "name", "type", "hook", "prio", "policy")
    if words is None:
        return None
    of, (kind, hook, priority, policy) = " ".join(words[:3]), words[3:]
    return f"add chain {of} {{ type {kind} hook {hook} priority {priority}; policy {policy}; }}"


def _rule(body: Mapping[str, Any]) -> str | None:
    words = _fields({key: body[key] for key in body if key != "expr"}, "family", "table", "chain")
    expressions = body.get("expr")
    if words is None or not isinstance(expressions, list):
        return None
    said = [_expression(each) for each in expressions]
    return " ".join(["add rule", *words, *filter(None, said)]) if said and all(said) else None


def _expression(value: Any) -> str | None:
    if not isinstance(value, dict) or len(value) != 1:
        return None
    ((name, body),) = value.items()
    if name in ("accept", "drop"):
        return str(name) if body is None else None
    if name != "match" or not isinstance(body, dict) or set(body) != {"op", "left", "right"}:
        return None
    left = _left(body["left"])
    right = _right(body["op"], body["right"], left)
    return f"{left} {right}" if left and right else None


def _left(value: Any) -> str | None:
    if not isinstance(value, dict) or len(value) != 1:
        return None
    ((name, body),) = value.items()
    if not isinstance(body, dict):
        return None
    if name == "payload":
        words = _fields(body, "protocol", "field")
        return " ".join(words) if words else None
    key = _fields(body, "key")
    return {"meta": key[0], "ct": f"ct {key[0]}"}.get(name) if key else None


def _right(operator: Any, value: Any, left: str | None) -> str | None:
    if operator == "in" and isinstance(value, list):
        words = [_word(each) for each in value]
        return ",".join(sorted(filter(None, words))) if words and all(words) else None
    if operator != "==":
        return None
    if left != "tcp dport":
        return _word(value)
    # Of a set with one element nft makes that element.
    several = value["set"] if isinstance(value, dict) and set(value) == {"set"} else [value]
    if not isinstance(several, list) or len(several) > _MANY:
        return None
    intervals = [_kernel_interval(each) for each in several]
    known = sorted(each for each in intervals if each)
    return _braces(map(_interval, known)) if known and len(known) == len(intervals) else None


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _kernel_interval(value: Any) -> Interval | None:
    ends = value["range"] if isinstance(value, dict) and set(value) == {"range"} else [value, value]
    if not isinstance(ends, list) or len(ends) != 2 or not all(_whole(end) for end in ends):
        return None
    return ends[0], ends[1]
