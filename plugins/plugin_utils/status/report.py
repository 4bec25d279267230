# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The status of a fleet: what was seen on each Spark now, the verdict about it, and its last day. Pure.

The shape of a report is in docs/status.md; status.json is a report, and status.html is made from one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from ...module_utils._serve.verdict import PASSED

VERSION = 1
WELL, WARNING, BAD, HELD, STARTING, STOPPED, EMPTY, UNSEEN = (
    "well",
    "warning",
    "bad",
    "held",
    "starting",
    "stopped",
    "empty",
    "unseen",
)
WORDS = {
    BAD: "bad",
    UNSEEN: "not seen",
    WARNING: "with a warning",
    STARTING: "starting",
    HELD: "held by a run",
    STOPPED: "stopped",
    EMPTY: "with nothing on record",
    WELL: "well",
}
"""Each verdict as the summary counts it, the worst first."""
OLD = 300
"""Seconds after which a look of the watchdog says nothing any more. It looks every 20 s."""
COLUMNS = (
    "host", "verdict", "tok/s", "accepted", "floor", "running", "waiting", "first token", "KV", "free", "GPU", "gate",
)  # fmt: skip
NONE = "-"
GIB = 1024**3
MOST_CHANGES = 12


def report(
    looks: Mapping[str, Mapping[str, Any]],
    day: Mapping[str, Any] | None,
    *,
    made: str,
    monitoring: str,
    problem: str,
) -> dict[str, Any]:
    """The report.

    :param looks: by host: `now` (as module_utils/_status/look.py gives it, or None) and `failure` (why there is none, else empty)
    :param day: as module_utils/_status/day.py gives it, or None
    :param made: when, in ISO 8601
    :param monitoring: host whose Prometheus was asked; empty for none
    :param problem: why there is no day, else empty
    """
    series = day["hosts"] if day else {}
    hosts = {name: _host(look, series.get(name) or {}) for name, look in looks.items()}
    count = Counter(host["verdict"] for host in hosts.values())
    servers = [host["now"]["server"] for host in hosts.values() if host["now"] and host["now"]["server"]]
    return {
        "version": VERSION,
        "made": made,
        "monitoring": {"host": monitoring, "problem": problem},
        "fleet": {
            "hosts": len(hosts),
            "verdicts": {verdict: count[verdict] for verdict in WORDS},
            "tokens_per_second": round(sum(each["tokens_per_second"] or 0 for each in servers), 1),
            "running": sum(each["running"] for each in servers),
            "waiting": sum(each["waiting"] for each in servers),
        },
        "alerts": list(day["alerts"]) if day else [],
        "day": {"start": day["start"], "step": day["step"]} if day else None,
        "hosts": hosts,
    }


def _host(look: Mapping[str, Any], series: Mapping[str, Any]) -> dict[str, Any]:
    now = look["now"]
    verdict, reasons = (UNSEEN, [look["failure"]]) if now is None else judge(now)
    return {
        "verdict": verdict,
        "reasons": reasons,
        "now": now,
        "day": dict(series),
        "changes": sorted(changes(now), key=lambda change: change["at"], reverse=True)[:MOST_CHANGES]
        if now
        else [],
    }


def judge(now: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The verdict about a Spark, and why; the strongest reason comes first. None for one that is well."""
    if run := now["run"]:
        return HELD, [
            f"{run['holder']} is at work here since {run['since']} ({run['playbook'] or 'a playbook'})"
        ]
    problems = now["problems"]
    watched = now["watchdog"] or {}
    told = [f"{each['kind']}: {each['seen']}; do: {each['do']}" for each in watched.get("findings", [])]
    lines = [f"{part}: {problem}" for part, problem in problems.items() if part != "server"]
    lines += _old(now, watched)
    said = watched.get("verdict") if not _old(now, watched) else None
    if said in (BAD, "down"):
        return BAD, [*(told or [watched["reason"]]), *lines]
    if now["record"] is None:
        return (
            (UNSEEN, lines) if "record" in problems else (EMPTY, ["nothing has passed the gate here", *lines])
        )
    if said in (STOPPED, STARTING):
        return str(said), [watched["reason"], *lines]
    if "server" in problems:
        return BAD, [f"server: {problems['server']}; do: run verify.yml", *told, *lines]
    if said == "unknown":
        lines.insert(0, f"watchdog: {watched['reason']}")
    reasons = [*_refused(now["gate"]), *_falls_short(now, told), *told, *lines]
    return (WARNING, reasons) if reasons else (WELL, [])


def _old(now: Mapping[str, Any], watched: Mapping[str, Any]) -> list[str]:
    age = now["at"] - watched["looked_at"] if watched else 0
    if age <= OLD:
        return []
    do = "do: see systemctl status sparkfleet-watchdog.timer"
    return [f"watchdog: its last look is {age / 60:.0f} minutes old, expected one every 20 s; {do}"]


def _refused(said: Mapping[str, Any] | None) -> list[str]:
    """That the server did not pass when it was measured last."""
    if not said or said["verdict"] == PASSED:
        return []
    return [
        f"gate: {said['diagnosis']}, asked at {clock(said['at'])}; do: see the entry of docs/troubleshooting.md"
    ]


def _falls_short(now: Mapping[str, Any], told: Sequence[str]) -> list[str]:
    """That acceptance is below its floor, unless the watchdog says so."""
    seen, floor = acceptance(now), now["record"]["floor"]
    if seen["rate"] is None or not floor or seen["drafts"] < (now["record"]["minimum_drafts"] or 1):
        return []
    if seen["rate"] >= floor or any(text.startswith("acceptance:") for text in told):
        return []
    return [
        f"acceptance: expected {floor:.0%} or more, seen {seen['rate']:.1%} of {seen['drafts']} drafts {seen['of']}; "
        "do: run verify.yml"
    ]


def acceptance(now: Mapping[str, Any]) -> dict[str, Any]:
    """Rate at position 0, drafts, and of which time: of the watchdog's last window if it has one, else since the server started."""
    window = (now["watchdog"] or {}).get("speculation") or {}
    server = now["server"] or {}
    if window.get("acceptance_rate") is not None:
        return {
            "rate": window["acceptance_rate"],
            "drafts": window["drafts"],
            "of": "in the watchdog's last window",
        }
    return {
        "rate": server.get("acceptance_rate"),
        "drafts": server.get("drafts") or 0,
        "of": "since its start",
    }


def changes(now: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What changed on a Spark last, as far as its files and its server tell: `at` in seconds since 1970, and `what`."""
    record, server, watched = now["record"], now["server"], now["watchdog"] or {}
    if record:
        before = record["before"]
        after = f", after {_named(before)}" if before else ""
        yield {"at": record["since"], "what": f"{_named(record)} passed the gate{after}"}
    if (said := now["gate"]) and said["verdict"] != PASSED:
        yield {"at": round(said["at"]), "what": f"the gate refused the server: {said['diagnosis']}"}
    if server and server["started"]:
        yield {"at": round(server["started"]), "what": "the server started"}
    for at in watched.get("restarts", []):
        yield {"at": round(at), "what": "the watchdog restarted the server"}
    for finding in watched.get("findings", []):
        yield {
            "at": round(finding["since"]),
            "what": f"the watchdog found {finding['kind']}: {finding['seen']}",
        }


def _named(record: Mapping[str, Any]) -> str:
    return f"{record['recipe'] or 'a recipe without a name'} ({digest(record['image'])})"


def digest(image: str | None) -> str:
    """The beginning of an image's digest.

    >>> digest("v@sha256:0123456789abcdef")
    '0123456789ab'
    """
    return (image or "").split("sha256:")[-1][:12] or NONE


def clock(at: float) -> str:
    """A time in seconds since 1970 as ISO 8601; a time that no calendar has as it is."""
    try:
        return datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, OSError, ValueError):
        return f"{at:.0f}"


# -- words of a cell


def number(value: float | None, digits: int = 1, unit: str = "") -> str:
    return NONE if value is None else f"{value:.{digits}f}{unit}"


def percent(value: float | None, digits: int = 1) -> str:
    return NONE if value is None else f"{value:.{digits}%}"


def seconds(value: float | None) -> str:
    return number(value, 2 if value is not None and value < 10 else 1, " s")


def gib(value: float | None) -> str:
    return NONE if value is None else f"{value / GIB:.1f} GiB"


def cells(name: str, host: Mapping[str, Any]) -> dict[str, str]:
    """One Spark as text, by :data:`COLUMNS`."""
    now = host["now"] or {}
    server, record, gpu = (now.get(part) or {} for part in ("server", "record", "gpu"))
    seen = acceptance(now) if now else {"rate": None}
    return {
        "host": name,
        "verdict": host["verdict"].upper() if host["verdict"] == BAD else host["verdict"],
        "tok/s": _worker(record) or number(server.get("tokens_per_second")),
        "accepted": percent(seen["rate"]),
        "floor": percent(record.get("floor") or None, 0),
        "running": number(server.get("running"), 0),
        "waiting": number(server.get("waiting"), 0),
        "first token": seconds(server.get("first_token_seconds")),
        "KV": percent(server.get("kv_cache_usage"), 0),
        "free": gib((now.get("memory") or {}).get("available")),
        "GPU": number(gpu.get("temperature"), 0, " °C"),
        "gate": gate(now.get("gate")),
    }


def _worker(record: Mapping[str, Any]) -> str:
    """Of what a worker is a member: its head has the figures. Empty of a server that answers."""
    unit = record.get("unit") or {}
    return f"member of {unit['name']}" if unit.get("rank") else ""


def gate(said: Mapping[str, Any] | None) -> str:
    """What the gate said when it was asked last."""
    if not said:
        return NONE
    accepted = percent(said["acceptance_rate"]) if said["drafts"] else NONE
    speed = number(said["tokens_per_second"] or None, 1, " tok/s")
    measured = [part for part in (accepted, speed) if part != NONE]
    return ", ".join([*([] if said["verdict"] == PASSED else [said["verdict"]]), *measured]) or str(
        said["verdict"]
    )


def reasons(made: Mapping[str, Any]) -> list[str]:
    """One line for each reason of each Spark that is not well."""
    return [f"{name}: {reason}" for name, host in made["hosts"].items() for reason in host["reasons"]]


def summary(made: Mapping[str, Any]) -> str:
    """One line: how many Sparks, how they are, and what they do together."""
    fleet = made["fleet"]
    shown = ", ".join(f"{count} {WORDS[verdict]}" for verdict, count in fleet["verdicts"].items() if count)
    load = f"{fleet['tokens_per_second']:.1f} tok/s, {fleet['running']} running, {fleet['waiting']} waiting"
    return f"{fleet['hosts']} Spark{'' if fleet['hosts'] == 1 else 's'}: {shown}; {load}"


def alerts(made: Mapping[str, Any]) -> list[str]:
    """One line for each alert that fires."""
    return [
        f"fires: {' '.join(each[part] for part in ('name', 'severity', 'host') if each[part])}"
        for each in made["alerts"]
    ]


def refusals(made: Mapping[str, Any]) -> dict[str, str]:
    """The Sparks that could not be looked at, each with the reason."""
    return {name: "; ".join(host["reasons"]) for name, host in made["hosts"].items() if host["now"] is None}
