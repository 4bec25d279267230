# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A drift report as one page: nothing is loaded from anywhere, nothing has to run to read it. Pure.

A sign and a word stand beside every colour. What the page says is text of hosts: everything is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from ansible_collections.sparkfleet.vllm.plugins.module_utils._drift import DRIFT, WARNING
from ansible_collections.sparkfleet.vllm.plugins.module_utils._drift_report import CLEAN, HELD, OK, UNKNOWN

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
:root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--text:#1b1f24;--soft:#57606a;--line:#d5dae1;
--ok:#1a6b3c;--ok-bg:#e3f4e9;--drift:#a40e26;--drift-bg:#fde7ea;--warning:#7a4b00;--warning-bg:#fff1d1;
--unknown:#4a5362;--unknown-bg:#e8ebf0}
@media(prefers-color-scheme:dark){:root{--page:#0e1116;--card:#171b22;--text:#e6e9ee;--soft:#9aa4b2;--line:#2d343f;
--ok:#7ee2a3;--ok-bg:#12301f;--drift:#ff9aa8;--drift-bg:#3d141b;--warning:#f5c86b;--warning-bg:#3a2a0a;
--unknown:#b6bfcc;--unknown-bg:#252b35}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--text);font:16px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:76rem;margin:0 auto;padding:2rem 1rem 4rem}
h1{font-size:1.6rem;line-height:1.25;margin:0 0 .25rem}
h2{font-size:1.2rem;margin:2.5rem 0 .75rem}
h3{font-size:1rem;margin:0;display:flex;gap:.75rem;align-items:center;flex-wrap:wrap}
p{margin:.25rem 0}.soft{color:var(--soft)}
code,.mono{font:.875em/1.45 ui-monospace,"Cascadia Mono",Menlo,Consolas,monospace;overflow-wrap:anywhere}
.chips{display:flex;gap:.5rem;flex-wrap:wrap;margin:1rem 0 0;padding:0;list-style:none}
.state{display:inline-flex;gap:.4em;align-items:baseline;padding:.1rem .55rem;border-radius:1rem;font-size:.875rem;
white-space:nowrap;border:1px solid currentColor}
.ok,.clean{color:var(--ok);background:var(--ok-bg)}.drift{color:var(--drift);background:var(--drift-bg)}
.warning{color:var(--warning);background:var(--warning-bg)}
.unknown,.held{color:var(--unknown);background:var(--unknown-bg)}
.ok.state{border-color:transparent;background:none;padding-left:0}
.sign{font-weight:700;display:inline-block;min-width:.8em;text-align:center}
.scroll{overflow-x:auto;border:1px solid var(--line);border-radius:.5rem;background:var(--card)}
table{border-collapse:collapse;width:100%;font-size:.9375rem}
caption{text-align:left;padding:.5rem .75rem;color:var(--soft);font-size:.875rem}
th,td{padding:.45rem .75rem;text-align:left;border-top:1px solid var(--line);vertical-align:top}
thead th{border-top:0;font-weight:600;font-size:.875rem;white-space:nowrap}
tbody th{font-weight:600;white-space:nowrap}
.matrix th,.matrix td{vertical-align:baseline}
.host{background:var(--card);border:1px solid var(--line);border-radius:.5rem;margin:0 0 1rem;padding:1rem}
.finding{border-top:1px solid var(--line);margin-top:.85rem;padding-top:.85rem}
.finding h4{margin:0 0 .4rem;font-size:.9375rem;display:flex;gap:.6rem;align-items:center;flex-wrap:wrap}
dl{display:grid;grid-template-columns:5.5rem 1fr;gap:.2rem .75rem;margin:0}
dt{color:var(--soft);font-size:.875rem}dd{margin:0;min-width:0;overflow-wrap:anywhere}
a{color:inherit}
@media(max-width:36rem){main{padding-top:1.25rem}dl{grid-template-columns:1fr;gap:0}dt{margin-top:.4rem}
th,td{padding:.4rem .5rem}}
@media(max-width:52rem){.matrix thead th:not(:first-child){writing-mode:vertical-rl;vertical-align:bottom;padding:.5rem .35rem}
.matrix td{padding:.35rem .15rem}.matrix .state{padding:.1rem .3rem}
.matrix .word{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}}
@media print{:root{--page:#fff;--card:#fff;--text:#000;--soft:#444;--line:#bbb;--ok:#0b5a2c;--ok-bg:#fff;--drift:#8f0a1f;
--drift-bg:#fff;--warning:#5e3a00;--warning-bg:#fff;--unknown:#333;--unknown-bg:#fff}
main{max-width:none;padding:0}.scroll{overflow:visible}.host,tr{break-inside:avoid}body{font-size:11pt}}
"""


def render(report: Mapping[str, Any]) -> str:
    """The page of a report (module_utils/_drift_report.py)."""
    hosts = report["hosts"]
    title = f"Drift: {report['recipe']}"
    body = "\n".join(
        [
            _head(report, title),
            _matrix(report),
            _fleet(report),
            _details(hosts),
            _versions(hosts),
            _compared(report),
        ]
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _state(state: str, words: str = "") -> str:
    sign = f'<span class="sign" aria-hidden="true">{SIGNS[state]}</span>'
    return f'<span class="state {state}">{sign}<span class="word">{escape(words or state)}</span></span>'


def _anchor(host: str) -> str:
    """An id for a host's details. Spaces end an id; nothing else has to be kept out."""
    return escape("host-" + "-".join(host.split()), quote=True)


def _head(report: Mapping[str, Any], title: str) -> str:
    number, verdicts = report["fleet"]["hosts"], report["fleet"]["verdicts"]
    chips = "".join(
        f"<li>{_state(verdict, f'{count} {WORDS[verdict]}')}</li>"
        for verdict, count in verdicts.items()
        if count
    )
    made = escape(report["made"])
    return (
        f"<header><h1>{escape(title)}</h1>\n"
        f'<p class="soft">{number} host{"" if number == 1 else "s"}, looked at until '
        f'<time datetime="{made}">{made.replace("T", " ").replace("Z", " UTC")}</time>. Nothing on them was changed.</p>\n'
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
            shown = f'<a href="#{_anchor(name)}">{shown}</a>'
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
    return f'<section><h2>All hosts together</h2><article class="host">{cards}</article></section>'


def _details(hosts: Mapping[str, Mapping[str, Any]]) -> str:
    cards = [_host(name, host) for name, host in hosts.items() if host["verdict"] != CLEAN]
    clean = [escape(name) for name, host in hosts.items() if host["verdict"] == CLEAN]
    parts = ["<section><h2>What differs</h2>", *cards]
    if clean:
        parts.append(f"<p>{_state(CLEAN)} <span>Nothing differs on {', '.join(clean)}.</span></p>")
    return "\n".join([*parts, "</section>"])


def _host(name: str, host: Mapping[str, Any]) -> str:
    lines = [f'<article class="host" id="{_anchor(name)}"><h3>{escape(name)} {_state(host["verdict"])}</h3>']
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
        f'<article class="host"><dl>{_terms(pairs)}</dl></article>\n'
        f'<article class="host"><dl>{_terms(SUBJECTS.items(), code=False)}</dl></article></section>'
    )


def _terms(pairs: Iterable[tuple[str, str]], code: bool = True) -> str:
    return "".join(
        f"<dt>{escape(term)}</dt><dd>{f'<code>{escape(text)}</code>' if code else escape(text)}</dd>"
        for term, text in pairs
    )
