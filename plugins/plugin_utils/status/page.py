# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A status report as one page: what `page.html.j2` lays out. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from ..report.page import render as fill
from . import chart, report
from .report import BAD, EMPTY, HELD, STARTING, STOPPED, UNSEEN, WARNING, WELL

SIGNS = {
    WELL: "✓", WARNING: "!", BAD: "✕", HELD: "…", STARTING: "…", STOPPED: "■", EMPTY: "–", UNSEEN: "?",
}  # fmt: skip
HEADS = {
    "tok/s": "tok/s",
    "accepted": "accepted",
    "floor": "floor",
    "running": "running",
    "waiting": "waiting",
    "first token": "first token",
    "KV": "KV cache",
    "free": "free memory",
    "GPU": "GPU",
    "gate": "at the gate",
}
"""The columns of the table, as the page names them."""
WORST_FIRST = tuple(report.WORDS)
OPEN = 4
"""Largest number of Sparks whose details are all open. Of more, those that are well are closed."""


@dataclass(frozen=True)
class Series:
    """How one series of the day is drawn."""

    key: str
    title: str
    number: Callable[[float], str]
    of_fleet: str
    """What stands for the fleet, in words."""
    together: Callable[[Iterable[float]], float]
    """The value of the fleet from those of its Sparks."""
    most: float | None = None
    """Where the axis ends, if that is always the same."""
    unit: float = 1.0
    """How many of the series make one of what is drawn."""


def _amount(value: float) -> str:
    """A number in few digits, without an exponent.

    >>> _amount(1174.2), _amount(29.76), _amount(5.0)
    ('1174', '29.8', '5')
    """
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


SERIES = (
    Series("tokens_per_second", "Tokens a second", _amount, "All Sparks together", sum),
    Series("acceptance_rate", "Accepted drafts", "{:.0%}".format, "The lowest Spark", min, 1.0),
    Series("waiting", "Waiting requests", _amount, "All Sparks together", sum),
    Series(
        "first_token_seconds",
        "Time to first token, p95",
        lambda value: f"{value:.3g} s",
        "The slowest Spark",
        max,
    ),
    Series("kv_cache_usage", "KV cache in use", "{:.0%}".format, "The fullest Spark", max, 1.0),
    Series(
        "memory_available",
        "Free memory",
        lambda value: f"{_amount(value)} GiB",
        "The Spark with the least",
        min,
        unit=report.GIB,
    ),
    Series("temperature", "GPU temperature", "{:.0f} °C".format, "The hottest Spark", max),
)
MEANINGS = {
    "tok/s": "Tokens that the server made between two looks, two seconds apart by default, of all its requests together.",
    "accepted": "Share of the drafts whose first token was accepted: in the last window of the watchdog, else since the server started. "
    "Below the floor of the recipe, speculation costs more than it gives.",
    "first token": "Mean wait for the first token since the server started. The chart has the wait that 95 % of the requests stay below.",
    "free memory": "What the kernel calls available. A Spark has one memory for host and GPU; without any it freezes.",
    "at the gate": "What the gate measured when it was asked last: at the start of the server, or by a later run.",
}


def render(made: Mapping[str, Any]) -> str:
    """The page of a report (`report.py`)."""
    hosts = made["hosts"]
    return fill(
        "status/page.html.j2",
        title="Status of the fleet",
        report=made,
        signs=SIGNS,
        words=report.WORDS,
        heads=["Spark", "verdict", *HEADS.values()],
        rows=[(name, host["verdict"], _cells(name, host)) for name, host in hosts.items()],
        summary=_load(made),
        fleet=list(_figures("fleet", _together(hosts.values()), made["day"])) if len(hosts) > 1 else [],
        hosts=[
            _host(name, hosts[name], made["day"], f"h{index}", len(hosts))
            for index, name in enumerate(
                sorted(hosts, key=lambda name: WORST_FIRST.index(hosts[name]["verdict"]))
            )
        ],
        meanings=MEANINGS,
        unseen=UNSEEN,
    )


def _cells(name: str, host: Mapping[str, Any]) -> list[str]:
    texts = report.cells(name, host)
    return ["–" if texts[column] == report.NONE else texts[column] for column in HEADS]


def _load(made: Mapping[str, Any]) -> list[tuple[str, str]]:
    fleet = made["fleet"]
    return [
        (f"{fleet['tokens_per_second']:.1f}", "tok/s"),
        (str(fleet["running"]), "running"),
        (str(fleet["waiting"]), "waiting"),
    ]


def _host(
    name: str, host: Mapping[str, Any], day: Mapping[str, Any] | None, key: str, count: int
) -> dict[str, Any]:
    now = host["now"]
    floor = ((now or {}).get("record") or {}).get("floor") or None
    return {
        "name": name,
        "verdict": host["verdict"],
        "reasons": host["reasons"],
        "open": count <= OPEN or host["verdict"] != WELL,
        "terms": list(_terms(now)) if now else [],
        "changes": [(report.clock(each["at"]), each["what"]) for each in host["changes"]],
        "figures": list(_figures(key, host["day"], day, floor)),
    }


def _terms(now: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    record, server, watched, memory, gpu = (
        now[part] for part in ("record", "server", "watchdog", "memory", "gpu")
    )
    if record:
        yield "recipe", record["recipe"] or report.NONE
        yield "image", report.digest(record["image"])
        yield "model", record["served_model"] or report.NONE
    if said := now["gate"]:
        yield "gate", f"{report.gate(said)}, asked at {_time(said['at'])}"
    if server and server["started"]:
        yield "serves since", _time(server["started"])
    if watched:
        yield "watchdog", f"{watched['verdict']} ({watched['mode']}), looked at {_time(watched['looked_at'])}"
    else:
        yield "watchdog", "none has looked"
    if memory:
        yield "memory", f"{report.gib(memory['available'])} free of {report.gib(memory['total'])}"
        if memory["swap_total"]:
            yield "swap", f"{report.gib(memory['swap_used'])} used of {report.gib(memory['swap_total'])}"
    if gpu:
        parts = [
            report.number(gpu[name], 0, unit)
            for name, unit in (
                ("utilisation", "%"),
                ("power", " W"),
                ("temperature", " °C"),
                ("clock", " MHz"),
            )
            if gpu[name] is not None
        ]
        slowed = f"; slowed by {', '.join(gpu['slowed_by'])}" if gpu["slowed_by"] else ""
        yield "GPU", (", ".join(parts) or "nvidia-smi gives no value") + slowed


def _time(at: float) -> str:
    return report.clock(at).replace("T", " ").replace("Z", " UTC")


# -- the day


def _figures(
    key: str,
    series: Mapping[str, Sequence[float | None]],
    day: Mapping[str, Any] | None,
    floor: float | None = None,
) -> Iterator[dict[str, Any]]:
    """A chart for each series, or why there is none. Nothing without a day."""
    if day is None:
        return
    for one in SERIES:
        level = floor if one.key == "acceptance_rate" else None
        line = chart.Line(
            one.title,
            [None if value is None else value / one.unit for value in series.get(one.key) or []],
            day["start"],
            day["step"],
            one.number,
            one.most,
            level,
            "floor",
        )
        yield {
            "title": one.title,
            "of_fleet": one.of_fleet if key == "fleet" else "",
            "legend": chart.legend(line),
            "drawing": chart.draw(f"{key}-{one.key}", line) if line.known else "",
        }


def _together(hosts: Iterable[Mapping[str, Any]]) -> dict[str, list[float | None]]:
    """The day of the fleet. At each time those Sparks count that have a value."""
    days = [host["day"] for host in hosts]
    found: dict[str, list[float | None]] = {}
    for one in SERIES:
        lines = [day[one.key] for day in days if day.get(one.key)]
        found[one.key] = [
            one.together(known) if (known := [value for value in column if value is not None]) else None
            for column in zip_longest(*lines)
        ]
    return found
