# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A report of a benchmark or a sweep as one page (module_utils/_page.py). Everything measured or named is escaped. Pure.

Each chart shows what a table on the page says in figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from ansible_collections.sparkfleet.vllm.plugins.module_utils import _bench_report as words
from ansible_collections.sparkfleet.vllm.plugins.module_utils import _chart
from ansible_collections.sparkfleet.vllm.plugins.module_utils._chart import Bar
from ansible_collections.sparkfleet.vllm.plugins.module_utils._page import (
    anchor,
    badge,
    document,
    moment,
    terms,
)
from ansible_collections.sparkfleet.vllm.plugins.module_utils._tune import FAILED, MEASURED, SKIPPED

STYLE = (
    """
:root{--bar:#9db8dd;--bar-strong:#2459a9}
@media(prefers-color-scheme:dark){:root{--bar:#3d5a85;--bar-strong:#86b1f2}}
@media print{:root{--bar:#bbb;--bar-strong:#555}}
.proposed{color:var(--good);background:var(--good-bg)}.failed{color:var(--bad);background:var(--bad-bg)}
.compared,.skipped{color:var(--unknown);background:var(--unknown-bg)}
.charts{display:grid;gap:1.5rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,19rem),1fr));margin:1rem 0}
figure{margin:0;min-width:0}figcaption{margin:0 0 .5rem;font-size:.875rem;color:var(--soft)}
figcaption b{display:block;color:var(--text);font-size:1rem}
h2 .state{font-weight:400;margin-left:.5rem}.card h3{margin:1.5rem 0 .5rem}
.reasons{margin:.75rem 0 0;padding:0;list-style:none}.reasons li{margin:.35rem 0}
.card .scroll{margin:.75rem 0 0}.card>dl{margin:1rem 0 0;grid-template-columns:8rem 1fr}
td.number{white-space:nowrap;font-variant-numeric:tabular-nums}
tr.strong th,tr.strong td{font-weight:700}
@media(max-width:36rem){.card>dl{grid-template-columns:1fr}.card{padding:.75rem}}
@media print{.scroll table{font-size:8pt}.scroll td,.scroll th{padding:.2rem .3rem}.charts{grid-template-columns:repeat(3,1fr)}
figure{break-inside:avoid}.card{break-inside:auto}}
"""
    + _chart.STYLE
)
SIGNS = {"proposed": "✓", "compared": "=", FAILED: "✕", SKIPPED: "…"}
PUBLISHED = "◇ published, not measured here"
MEANINGS = {
    "tok/s": "Of one stream: tokens over decode seconds, all prompts together, without the wait for the first token. Of several streams: "
    "the throughput of the whole load. Tokens are those that the server accounts for, never chunks of a stream.",
    "in brackets": "Where the value lies with 95 %, by drawing prompts again and again from those that were asked. Prompts differ among each "
    "other, so two speeds may overlap while their ratio, taken prompt by prompt, is certain.",
    "accepted %": "Share of the drafts of which the token at this position was accepted, 0 being the first, and its standard error. A "
    "position counts only if all before it were accepted.",
    "ceiling": "1 + the shares accepted: tokens an engine step yields, and so many times as fast if drafting and verifying took no time. "
    "What is missing to it is what they take.",
    "skipped": "Not measured, since it cannot come out best even under favourable assumptions. The reason stands beside it.",
}


def render(report: Mapping[str, Any]) -> str:
    """The page of a report (module_utils/_bench_report.py)."""
    title = f"Speculation measured: {words.recipes(report)}"
    hosts = report["hosts"]
    return document(
        title,
        STYLE,
        [
            _head(report, title),
            _fleet(hosts),
            *(_host(name, host, f"c{index}") for index, (name, host) in enumerate(hosts.items())),
            f'<section><h2>How to read it</h2><article class="card"><dl>{terms(MEANINGS.items(), code=False)}</dl></article></section>',
        ],
    )


def _head(report: Mapping[str, Any], title: str) -> str:
    number = len(report["hosts"])
    return (
        f"<header><h1>{escape(title)}</h1>\n"
        f'<p class="soft">{number} host{"" if number == 1 else "s"}, {moment(report["made"])}.</p></header>'
    )


def _badge(host: Mapping[str, Any]) -> str:
    if host["failure"]:
        return badge(FAILED, SIGNS[FAILED], "failed")
    if host["sweep"]["proposal"] is None:
        return badge("compared", SIGNS["compared"], "compared")
    return badge("proposed", SIGNS["proposed"], "proposed")


def _fleet(hosts: Mapping[str, Mapping[str, Any]]) -> str:
    lines = []
    for name, host in hosts.items():
        link = f'<a href="#{anchor(name)}">{escape(name)}</a>'
        lines.append(
            f'<tr><th scope="row">{link}</th><td>{_badge(host)} {escape(words.outcome(host))}</td></tr>'
        )
    heads = "".join(f'<th scope="col">{head}</th>' for head in ("Spark", "what came of it"))
    return f"<section><h2>The fleet</h2>{_scroll('The fleet', heads, lines)}</section>"


def _host(name: str, host: Mapping[str, Any], key: str) -> str:
    parts = [
        f'<section id="{anchor(name)}"><h2>{escape(name)} {_badge(host)}</h2><article class="card">',
        f"<p>{escape(words.outcome(host))}</p>",
    ]
    if host["sweep"]:
        parts.append(_reasons(host["sweep"]))
        parts += [_load(name, load, f"{key}-{load['concurrency']}") for load in host["loads"]]
        parts.append(_kinds(name, host["sweep"]))
        parts.append(_published(name, host["sweep"].get("published")))
        parts.append(f"<dl>{terms([('measured with', words.conditions(host['sweep']))], code=False)}</dl>")
    return "\n".join([*parts, "</article></section>"])


def _reasons(sweep: Mapping[str, Any]) -> str:
    lines = "".join(
        f"<li>{badge(state, SIGNS[state], f'{name} {state}')} {escape(because)}</li>"
        for name, state, because in words.reasons(sweep)
    )
    return f'<ul class="reasons">{lines}</ul>' if lines else ""


def _load(host: str, load: Mapping[str, Any], key: str) -> str:
    rows = load["rows"]
    streams = words.streams(load["concurrency"])
    decides = ", which decides" if load["decides"] else ""
    charts = "".join(
        [_speeds(rows, streams, key), _acceptance(rows, streams, key), _ceilings(rows, streams, key)]
    )
    return (
        f'<h3>{streams.capitalize()}{decides}</h3>\n<div class="charts">{charts}</div>\n'
        f"{_table(f'{host}, {streams}', (row for row in rows if row['index'] is not None))}"
    )


# -- charts


def _figure(title: str, legend: Iterable[str], svg: str) -> str:
    said = ". ".join(part for part in legend if part)
    return f"<figure><figcaption><b>{escape(title)}</b>{escape(said)}.</figcaption>{svg}</figure>"


def _mark(rows: Iterable[Mapping[str, Any]], key: str) -> str:
    return PUBLISHED if any((row["published"] or {}).get(key) for row in rows) else ""


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['name']} · proposed" if row["proposed"] else str(row["name"])


def _text(row: Mapping[str, Any], value: str, figure: str) -> str:
    """What stands at a bar: its value, or why there is none; and what was published of it."""
    shown = value if row["load"] else row["state"] if row["state"] != MEASURED else "not under this load"
    return f"{shown}  ◇ {figure}" if figure else shown


def _speeds(rows: Sequence[Mapping[str, Any]], streams: str, key: str) -> str:
    bars = []
    for row in rows:
        figure = (row["published"] or {}).get("tokens_per_second")
        if row["index"] is None and not figure:
            continue
        bars.append(
            Bar(
                _name(row),
                _text(row, words.number(row["tokens_per_second"]), words.number(figure) if figure else ""),
                row["tokens_per_second"],
                row["interval"] and tuple(row["interval"]),
                mark=figure,
                strong=row["proposed"],
            )
        )
    svg = _chart.draw(f"{key}-speed", f"Tokens a second by depth, {streams}", bars, "{:g}".format)
    legend = ["tok/s", "Line: interval of 95 %", _mark(rows, "tokens_per_second")]
    return _figure("Tokens a second", legend, svg)


def _acceptance(rows: Sequence[Mapping[str, Any]], streams: str, key: str) -> str:
    bars = []
    for row in rows:
        load, figures = row["load"] or {}, (row["published"] or {}).get("rates") or []
        rates, errors = load.get("rates") or [], load.get("standard_errors") or []
        count = max(len(rates), len(figures))
        if count:
            bars.append(Bar(_name(row), heading=True))
        for position in range(count):
            rate = rates[position] if position < len(rates) else None
            figure = figures[position] if position < len(figures) else None
            ends = None if rate is None else (max(0.0, rate - errors[position]), rate + errors[position])
            value = "" if rate is None else f"{100 * rate:.1f} ± {100 * errors[position]:.1f} %"
            published = "" if figure is None else f"{100 * figure:.0f} %"
            text = _text(row, value, published)
            bars.append(Bar(f"position {position}", text, rate, ends, mark=figure, strong=row["proposed"]))
    if not bars:
        return ""
    svg = _chart.draw(
        f"{key}-rates", f"Accepted drafts by position, {streams}", bars, lambda rate: f"{100 * rate:g} %"
    )
    legend = ["Share of the drafts", "Line: one standard error to either side", _mark(rows, "rates")]
    return _figure("Accepted by position", legend, svg)


def _ceilings(rows: Sequence[Mapping[str, Any]], streams: str, key: str) -> str:
    bars = []
    for row in rows:
        figure = (row["published"] or {}).get("ratio")
        if row["index"] is None and not figure:
            continue
        value = f"{words.number(row['ratio'], 2)} of {words.number(row['ceiling'], 2)}"
        bars.append(
            Bar(
                _name(row),
                _text(row, value, words.number(figure, 2) if figure else ""),
                row["ratio"],
                row["ratio_interval"] and tuple(row["ratio_interval"]),
                outline=row["ceiling"],
                mark=figure,
                strong=row["proposed"],
            )
        )
    if not any(each.value for each in bars):
        return ""
    svg = _chart.draw(
        f"{key}-ratio", f"Ratio to off beside its ceiling, {streams}", bars, "{:g}".format, level=1.0
    )
    legend = [
        "Full: times as fast as off",
        "Dashed: the ceiling 1 + acceptance",
        "Line: interval of 95 %",
        _mark(rows, "ratio"),
    ]
    return _figure("Reached, and the ceiling", legend, svg)


# -- tables


def _scroll(label: str, heads: str, lines: Sequence[str]) -> str:
    """A table that scrolls by itself where it is wider than the screen, also by keyboard."""
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(label, quote=True)}"><table>\n'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n" + "\n".join(lines) + "\n</tbody></table></div>"
    )


def _table(label: str, rows: Iterable[Mapping[str, Any]]) -> str:
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in words.COLUMNS)
    lines = []
    for row in rows:
        strong = ' class="strong"' if row["proposed"] else ""
        lines.append(f"<tr{strong}>{_cells(words.cells(row).values())}</tr>")
    return _scroll(label, heads, lines)


def _cells(texts: Iterable[str]) -> str:
    """A row that the first text names."""
    first, *others = map(escape, texts)
    return f'<th scope="row">{first}</th>' + "".join(f'<td class="number">{text}</td>' for text in others)


def _published(host: str, published: Mapping[str, Any] | None) -> str:
    """Somebody else's figures, by themselves and with their source."""
    if not published:
        return ""
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in words.PUBLISHED_COLUMNS)
    lines = [f"<tr>{_cells(texts)}</tr>" for texts in words.published(published)]
    said = words.paid(published)
    source = f"<p>{escape(words.source(published))}</p>" + (f"<p>{escape(said)}</p>" if said else "")
    table = _scroll(f"{host}, published", heads, lines) if lines else ""
    return f"<h3>Published, not measured here</h3>{source}{table}"


def _kinds(host: str, sweep: Mapping[str, Any]) -> str:
    """Prompts by kind under the first load: what a mean over all of them hides."""
    candidates = sweep["candidates"]
    order = words.order([candidate["speculation"] for candidate in candidates])
    measured = [candidates[index] for index in order if candidates[index]["measurement"]]
    firsts = [candidate["measurement"]["loads"][0] for candidate in measured]
    kinds = {kind: None for load in firsts for kind in load["kinds"]}
    if not kinds:
        return ""
    names = words.called([candidate["speculation"] for candidate in measured])
    heads = "".join(f'<th scope="col">{escape(head)}</th>' for head in ("kind of prompt", *names))
    lines = [
        f"<tr>{_cells([kind, *(_kind(load['kinds'].get(kind)) for load in firsts)])}</tr>" for kind in kinds
    ]
    streams = words.streams(firsts[0]["concurrency"])
    said = f'<p class="soft">Median tok/s of a request, and percent accepted by position; {streams}.</p>'
    return f"<h3>By kind of prompt</h3>{said}{_scroll(f'{host}, by kind of prompt', heads, lines)}"


def _kind(shown: Mapping[str, Any] | None) -> str:
    if shown is None:
        return words.NONE
    rates = " ".join(f"{100 * rate:.0f}" for rate in shown["rates"])
    return f"{shown['decode_tokens_per_second']:.1f}" + (f" at {rates} %" if rates else "")
