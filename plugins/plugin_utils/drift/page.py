# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A drift report as one page: what `page.html.j2` lays out. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...module_utils._drift.finding import DRIFT, WARNING
from ..report.page import render as fill
from .report import CLEAN, HELD, OK, UNKNOWN

SIGNS = {OK: "✓", CLEAN: "✓", DRIFT: "✕", WARNING: "!", UNKNOWN: "?", HELD: "…"}
WORDS = {
    CLEAN: "clean",
    WARNING: "with a warning",
    DRIFT: "with drift",
    UNKNOWN: "not judged",
    HELD: "held by a run",
}
SUBJECTS = {
    "host": "architecture, memory, disk and ports; versions of driver, toolkit and engine against the minimum, against those "
    "with which the gate was passed, and against the rest of the fleet; other containers with a GPU",
    "engine": "packages, the Python environment of the modules, daemon.json key by key, and whether the running engine has read it",
    "models": "every file of every locked snapshot; files that the lock does not know; whether the server still has the "
    "directory that lies there now",
    "patches": "the files in the store by checksum, the same files as the serving process sees them, and whether they are older "
    "than that process",
    "container": "image by digest, arguments by option, environment by name, mounts, ports, restart policy, rights, limits, labels, "
    "program files changed inside; whether it runs",
    "server": "/health, the names in /v1/models, the cache and the speculation that vLLM says it runs with, and the share of "
    "accepted drafts since its start",
    "boot": "the unit that starts the server at boot: there, enabled, unchanged",
    "watchdog": "its program, settings and units, whether it looks, whether it keeps the server down, and what it found last",
    "record": "whether what runs has passed the gate on this host",
    "gateway": "every file of a gateway, its units, whether it runs, and which Sparks get requests",
}
HOW = {
    "stat": "by size and times against what was hashed before (drift_verify=full hashes every file)",
    "full": "by the sha256 of every file",
}
VERSIONS = ("driver", "toolkit", "engine", "kernel", "os")


def render(report: Mapping[str, Any]) -> str:
    """The page of a report (`report.py`)."""
    hosts = report["hosts"]
    return fill(
        "drift/page.html.j2",
        title=f"Drift: {report['recipe']}",
        report=report,
        signs=SIGNS,
        verdicts=WORDS,
        clean=CLEAN,
        unknown=UNKNOWN,
        counted_kinds=(DRIFT, WARNING),
        clean_hosts=[name for name, host in hosts.items() if host["verdict"] == CLEAN],
        version_heads=["host", *VERSIONS, "serves since (UTC)", "drafts since", "accepted at 0"],
        versions=[(name, list(_versions(host))) for name, host in hosts.items()],
        compared=_compared(report),
        subjects={subject: SUBJECTS[subject] for subject in report["subjects"]},
    )


def _versions(host: Mapping[str, Any]) -> Iterator[str]:
    container, speculation = host["container"] or {}, host["speculation"] or {}
    rate = speculation.get("acceptance_rate")
    for name in VERSIONS:
        yield str(host["versions"].get(name) or "–")
    yield container.get("started_at", "")[:19].replace("T", " ") or "–"
    yield str(speculation["drafts"]) if speculation else "–"
    yield "–" if rate is None else f"{rate:.1%}"


def _compared(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    lock = report["lock"]
    pairs = [("recipe", report["recipe"]), ("image", lock["image"] or "–")]
    return [*pairs, *lock["models"].items(), *lock["patches"].items(), ("models", HOW[report["verify"]])]
