# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The drift report of a fleet: what the roles found on every host, and what shows only when hosts are compared. Pure.

The shape of a report is in docs/drift.md; drift.json is a report, and drift.html is made from one.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ...module_utils._drift.finding import DRIFT, OF_SPARK, SUBJECTS, WARNING, Finding
from . import units

VERSION = 1
OK, UNKNOWN, HELD, CLEAN = "ok", "unknown", "held", "clean"
PASSING = (CLEAN, WARNING)
"""Verdicts of a host that is as it should be. A host that could not be judged has none of them."""
COMPARED = ("driver", "toolkit", "engine", "kernel")
WORDS = {
    "driver": "NVIDIA driver",
    "toolkit": "nvidia-container-toolkit",
    "engine": "Docker engine",
    "kernel": "kernel",
}
COLUMNS = ("host", "subject", "kind", "expected", "seen", "do")
_LONGEST = 2000
"""Characters of a cell that are shown; drift.json has all of them."""
_WIDE = {"expected": 36, "seen": 36, "do": 36}


def report(
    looks: Mapping[str, Mapping[str, Any]], lock: Mapping[str, Any], *, made: str, verify: str, recipe: str
) -> dict[str, Any]:
    """The report.

    :param looks: by host: ``parts`` (by role, as module_utils/_drift/finding.py gives them), ``failure`` (why the look is missing or
        not whole, else empty) and ``subjects`` (what there is to look at; those of a Spark unless given)
    :param lock: the lock that hosts were compared with
    :param made: when, in ISO 8601
    :param verify: how models were compared, ``stat`` or ``full``
    """
    versions = {host: _known(look).get("versions") or {} for host, look in looks.items()}
    odd, split = outliers(versions)
    apart = units.findings({host: _known(look) for host, look in looks.items()})
    hosts = {host: _host(look, [*odd.get(host, ()), *apart.get(host, ())]) for host, look in looks.items()}
    count = Counter(host["verdict"] for host in hosts.values())
    return {
        "version": VERSION,
        "made": made,
        "recipe": recipe,
        "lock": {
            "image": (lock.get("image") or {}).get("pinned"),
            "models": {
                role: f"{model['repository']}@{model['commit']}"
                for role, model in (lock.get("models") or {}).items()
            },
            "patches": {patch["name"]: patch["md5"] for patch in lock.get("patches") or []},
        },
        "verify": verify,
        "subjects": [
            subject for subject in SUBJECTS if any(subject in host["subjects"] for host in hosts.values())
        ],
        "fleet": {
            "hosts": len(hosts),
            "verdicts": {verdict: count[verdict] for verdict in (CLEAN, WARNING, DRIFT, UNKNOWN, HELD)},
            "findings": [asdict(finding) for finding in split],
        },
        "hosts": hosts,
    }


def _known(look: Mapping[str, Any]) -> dict[str, Any]:
    known: dict[str, Any] = {}
    for part in look["parts"].values():
        known |= part["known"]
    return known


def _host(look: Mapping[str, Any], odd: Iterable[Finding]) -> dict[str, Any]:
    parts, known = list(look["parts"].values()), _known(look)
    looked_at = {subject for part in parts for subject in part["subjects"]}
    findings = [finding for part in parts for finding in part["findings"]]
    told = {finding["kind"] for finding in findings}
    changed = [
        finding for finding in changed_since(known) if f"{finding.kind.split('-')[0]}-too-old" not in told
    ]
    findings += [asdict(finding) for finding in (*changed, *odd)]
    findings.sort(key=lambda finding: (SUBJECTS.index(finding["subject"]), finding["severity"]))
    unknown: dict[str, str] = {}
    for part in parts:
        for subject, reason in part["unknown"].items():
            unknown.setdefault(subject, reason)
    reason = "not looked at" if look["failure"] else "not looked at: the engine has to answer first"
    mine = look.get("subjects", OF_SPARK)
    unknown |= {subject: reason for subject in mine if subject not in looked_at}
    held = known.get("held")
    reason = look["failure"]
    if held:
        # A run's half-done work is no drift, and parts that it has not reached yet tell nothing of its result.
        reason = (
            f"{held['holder']} is at work here since {held['since']} ({held.get('playbook') or 'a playbook'})"
        )
        findings, unknown = [], dict.fromkeys(mine, "a run is at work")
    subjects = {subject: _state(subject, findings, unknown, looked_at) for subject in mine}
    return {
        "verdict": _verdict(subjects, bool(held), bool(look["failure"])),
        "reason": reason,
        "subjects": subjects,
        "findings": findings,
        "unknown": unknown,
        "versions": known.get("versions") or {},
        "container": known.get("container"),
        "speculation": known.get("speculation"),
    }


def _state(
    subject: str, findings: Sequence[Mapping[str, Any]], unknown: Mapping[str, str], looked_at: Iterable[str]
) -> str:
    severities = {finding["severity"] for finding in findings if finding["subject"] == subject}
    if DRIFT in severities:
        return DRIFT
    if subject in unknown or subject not in looked_at:
        return UNKNOWN
    return WARNING if severities else OK


def _verdict(subjects: Mapping[str, str], held: bool, failed: bool) -> str:
    if held:
        return HELD
    states = set(subjects.values())
    if DRIFT in states:
        return DRIFT
    if failed or UNKNOWN in states:
        return UNKNOWN
    return WARNING if WARNING in states else CLEAN


def changed_since(known: Mapping[str, Any]) -> list[Finding]:
    """Versions that differ from those with which the current spec passed the gate."""
    versions, passed = known.get("versions") or {}, known.get("passed_on") or {}
    return [
        Finding(
            "host",
            f"{name}-changed",
            f"{WORDS[name]} {passed[name]}, with which the gate was passed",
            f"{WORDS[name]} {versions[name]}",
            "playbooks/site.yml measures with it and records it; else bring the former version back",
        )
        for name in COMPARED
        if passed.get(name) and versions.get(name) and passed[name] != versions[name]
    ]


def outliers(
    versions: Mapping[str, Mapping[str, str | None]],
) -> tuple[dict[str, list[Finding]], list[Finding]]:
    """Hosts with another version than most have, and versions over which the fleet is split without a majority."""
    odd: dict[str, list[Finding]] = {}
    split: list[Finding] = []
    for name in COMPARED:
        seen = {host: value for host, known in versions.items() if (value := known.get(name))}
        counts = Counter(seen.values()).most_common()
        if len(counts) < 2:
            continue
        common, hosts = counts[0]
        if 2 * hosts <= len(seen):
            shares = ", ".join(f"{value} on {number}" for value, number in counts)
            do = "bring the hosts to one version"
            split.append(
                Finding("host", f"{name}-differs", f"one {WORDS[name]} in the fleet", shares, do, WARNING)
            )
            continue
        for host, value in seen.items():
            if value != common:
                expected = f"{WORDS[name]} {common}, as on {hosts} of {len(seen)} hosts"
                do = "bring this host to the version of the others"
                odd.setdefault(host, []).append(
                    Finding("host", f"{name}-differs", expected, f"{WORDS[name]} {value}", do, WARNING)
                )
    return odd, split


# -- for a terminal


def rows(made: Mapping[str, Any]) -> list[dict[str, str]]:
    """The findings as a table, and why a host or a subject could not be judged. Empty for a clean fleet."""
    found = [_row("all", finding) for finding in made["fleet"]["findings"]]
    for name, host in made["hosts"].items():
        if host["reason"]:
            kind = HELD if host["verdict"] == HELD else UNKNOWN
            do = "wait until that run has ended" if kind == HELD else "bring the host back, then run again"
            found.append(
                {
                    "host": name,
                    "subject": "-",
                    "kind": kind,
                    "expected": "-",
                    "seen": host["reason"],
                    "do": do,
                }
            )
        found += [_row(name, finding) for finding in host["findings"]]
        if not host["reason"]:
            found += [
                {
                    "host": name,
                    "subject": subject,
                    "kind": UNKNOWN,
                    "expected": "-",
                    "seen": reason,
                    "do": "run again",
                }
                for subject, reason in host["unknown"].items()
            ]
    return found


def _row(host: str, finding: Mapping[str, str]) -> dict[str, str]:
    kind = finding["kind"] if finding["severity"] == DRIFT else f"{finding['kind']} ({finding['severity']})"
    return {"host": host, "kind": kind} | {
        name: finding[name] for name in ("subject", "expected", "seen", "do")
    }


def wrapped(table: Iterable[Mapping[str, str]]) -> list[dict[str, str]]:
    """Rows whose long cells go on in rows below."""
    lines = []
    for row in table:
        cells = {name: textwrap.wrap(row[name][:_LONGEST], _WIDE.get(name, 200)) or [""] for name in COLUMNS}
        for index in range(max(map(len, cells.values()))):
            lines.append({name: cell[index] if index < len(cell) else "" for name, cell in cells.items()})
    return lines


def summary(made: Mapping[str, Any]) -> str:
    """One line: how many hosts, and how they are."""
    verdicts = {verdict: number for verdict, number in made["fleet"]["verdicts"].items() if number}
    words = {WARNING: "with a warning", DRIFT: "with drift", UNKNOWN: "not judged", HELD: "held by a run"}
    shown = ", ".join(f"{number} {words.get(verdict, verdict)}" for verdict, number in verdicts.items())
    hosts = made["fleet"]["hosts"]
    return f"{made['recipe']}: {hosts} host{'s' if hosts != 1 else ''}, {shown}"


def refusal(host: Mapping[str, Any]) -> str:
    """Why a host does not count as it should be; empty if it does."""
    if host["verdict"] in PASSING:
        return ""
    if host["reason"]:
        return str(host["reason"])
    if host["verdict"] == UNKNOWN:
        return "; ".join(f"{subject}: {reason}" for subject, reason in host["unknown"].items())
    kinds = Counter(f"{f['subject']}: {f['kind']}" for f in host["findings"] if f["severity"] == DRIFT)
    return ", ".join(kind if number == 1 else f"{kind} ({number})" for kind, number in kinds.items())
