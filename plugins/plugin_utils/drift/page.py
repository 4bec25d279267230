# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A drift report as one page (plugin_utils/report/page.py). What it says is text of hosts: everything is escaped. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from ...module_utils._drift.finding import DRIFT, WARNING
from ..report.page import anchor, badge, document, moment, terms
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
    "record": "whether what runs has passed the gate on this host",
}
STYLE = """
.ok,.clean{color:var(--good);background:var(--good-bg)}.drift{color:var(--bad);background:var(--bad-bg)}
.held{color:var(--unknown);background:var(--unknown-bg)}
.ok.state{border-color:transparent;background:none;padding-left:0}
.matrix th,.matrix td{vertical-align:baseline}
.finding{border-top:1px solid var(--line);margin-top:.85rem;padding-top:.85rem}
.finding h4{margin:0 0 .4rem;font-size:.9375rem;display:flex;gap:.6rem;align-items:center;flex-wrap:wrap}
@media(max-width:52rem){.matrix thead th:not(:first-child){writing-mode:vertical-rl;vertical-align:bottom;padding:.5rem .35rem}
.matrix td{padding:.35rem .15rem}.matrix .state{padding:.1rem .3rem}
.matrix .word{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}}
"""


def render(report: Mapping[str, Any]) -> str:
    """The page of a report (plugin_utils/drift/report.py)."""
    hosts = report["hosts"]
    title = f"Drift: {report['recipe']}"
    parts = [
        _head(report, title),
        _matrix(report),
        _fleet(report),
        _details(hosts),
        _versions(hosts),
        _compared(report),
    ]
    return document(title, STYLE, parts)


def _state(state: str, words: str = "") -> str:
    return badge(state, SIGNS[state], words or state)


def _head(report: Mapping[str, Any], title: str) -> str:
    number, verdicts = report["fleet"]["hosts"], report["fleet"]["verdicts"]
    chips = "".join(
        f"<li>{_state(verdict, f'{count} {WORDS[verdict]}')}</li>"
        for verdict, count in verdicts.items()
        if count
    )
    return (
        f"<header><h1>{escape(title)}</h1>\n"
        f'<p class="soft">{number} host{"" if number == 1 else "s"}, looked at until '
        f"{moment(report['made'])}. Nothing on them was changed.</p>\n"
        f'<ul class="chips">{chips}</ul></header>'
    )


def _matrix(report: Mapping[str, Any]) -> str:
    subjects = report["subjects"]
    heads = "".join(f'<th scope="col">{escape(subject)}</th>' for subject in subjects)
    lines = []
    for name, host in report["hosts"].items():
        cells = "".join(f"<td>{_cell(host, subject)}</td>" for subject in subjects)
        shown = escape(name)
        if host["verdict"] != CLEAN:
            shown = f'<a href="#{anchor(name)}">{shown}</a>'
        lines.append(f'<tr><th scope="row">{shown}</th>{cells}</tr>')
    return (
        '<section><h2>The fleet</h2>\n<div class="scroll matrix"><table>\n'
        f'<thead><tr><th scope="col">Spark</th>{heads}</tr></thead>\n<tbody>\n'
        + "\n".join(lines)
        + "\n</tbody></table></div></section>"
    )


def _cell(host: Mapping[str, Any], subject: str) -> str:
    state = host["subjects"][subject]
    count = sum(finding["subject"] == subject for finding in host["findings"])
    return _state(state, f"{state} · {count}" if state in (DRIFT, WARNING) else state)


def _fleet(report: Mapping[str, Any]) -> str:
    findings = report["fleet"]["findings"]
    if not findings:
        return ""
    cards = "".join(_finding(finding) for finding in findings)
    return f'<section><h2>All hosts together</h2><article class="card">{cards}</article></section>'


def _details(hosts: Mapping[str, Mapping[str, Any]]) -> str:
    cards = [_host(name, host) for name, host in hosts.items() if host["verdict"] != CLEAN]
    clean = [escape(name) for name, host in hosts.items() if host["verdict"] == CLEAN]
    parts = ["<section><h2>What differs</h2>", *cards]
    if clean:
        parts.append(f"<p>{_state(CLEAN)} <span>Nothing differs on {', '.join(clean)}.</span></p>")
    return "\n".join([*parts, "</section>"])


def _host(name: str, host: Mapping[str, Any]) -> str:
    lines = [f'<article class="card" id="{anchor(name)}"><h3>{escape(name)} {_state(host["verdict"])}</h3>']
    if host["reason"]:
        lines.append(f"<p>{escape(host['reason'])}</p>")
    lines += [_finding(finding) for finding in host["findings"]]
    if not host["reason"]:
        lines += [
            f'<div class="finding"><h4>{_state(UNKNOWN)}<span>{escape(subject)}</span></h4><p>{escape(reason)}</p></div>'
            for subject, reason in host["unknown"].items()
        ]
    return "\n".join([*lines, "</article>"])


def _finding(finding: Mapping[str, str]) -> str:
    rows = [("expected", "expected", True), ("seen", "seen", True), ("do next", "do", False)]
    terms = "".join(
        f"<dt>{label}</dt><dd>{f'<code>{escape(finding[key])}</code>' if code else escape(finding[key])}</dd>"
        for label, key, code in rows
    )
    return (
        f'<div class="finding"><h4>{_state(finding["severity"])}<span>{escape(finding["subject"])}</span>'
        f'<code class="soft">{escape(finding["kind"])}</code></h4><dl>{terms}</dl></div>'
    )


def _versions(hosts: Mapping[str, Mapping[str, Any]]) -> str:
    heads = ("driver", "toolkit", "engine", "kernel", "os")
    lines = []
    for name, host in hosts.items():
        container, speculation = host["container"] or {}, host["speculation"] or {}
        rate = speculation.get("acceptance_rate")
        cells = [host["versions"].get(head) for head in heads]
        cells += [
            container.get("started_at", "")[:19].replace("T", " "),
            f"{speculation['drafts']}" if speculation else None,
            None if rate is None else f"{rate:.1%}",
        ]
        shown = "".join(f'<td class="mono">{escape(str(cell or "–"))}</td>' for cell in cells)
        lines.append(f'<tr><th scope="row">{escape(name)}</th>{shown}</tr>')
    head = "".join(
        f'<th scope="col">{label}</th>'
        for label in ("Spark", *heads, "serves since (UTC)", "drafts since", "accepted at 0")
    )
    return (
        '<section><h2>What was seen</h2><div class="scroll"><table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(lines) + "\n</tbody></table></div></section>"
    )


def _compared(report: Mapping[str, Any]) -> str:
    lock = report["lock"]
    how = {
        "stat": "by size and times against what was hashed before (drift_verify=full hashes every file)",
        "full": "by the sha256 of every file",
    }
    pairs: list[tuple[str, str]] = [("recipe", report["recipe"]), ("image", lock["image"] or "–")]
    pairs += [*lock["models"].items(), *lock["patches"].items(), ("models", how[report["verify"]])]
    return (
        "<section><h2>What was compared</h2>\n"
        f'<article class="card"><dl>{terms(pairs)}</dl></article>\n'
        f'<article class="card"><dl>{terms(SUBJECTS.items(), code=False)}</dl></article></section>'
    )
