# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A report of a benchmark or a sweep as one page: what `page.html.j2` lays out. Pure.

Each chart shows what a table on the page says in figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..report.page import render as fill
from . import chart
from . import report as words
from .chart import Bar
from .statistics import FAILED, MEASURED, SKIPPED, UNMEASURABLE

SIGNS = {"proposed": "✓", "compared": "=", FAILED: "✕", SKIPPED: "…", UNMEASURABLE: "?"}
PUBLISHED = "◇ published, not measured here"
MEANINGS = {
    "tok/s": "Of one stream: tokens over decode seconds, all prompts together, without the wait for the first token. Of several streams: "
    "the throughput of the whole load. Tokens are those that the server accounts for, never chunks of a stream.",
    UNMEASURABLE: "The client's clock and the server's own contradict each other, an answer came in one piece, or the acceptance does not allow such "
    "a gain. The reason stands beside it. Such a speed is never proposed, and nothing is compared with it.",
    "one witness": "By the client's clock alone: the server publishes no histogram of its decode times, or it had other requests, too.",
    "proposed": "For the load that decides, with all kinds of prompts together, and for no other load.",
    "in brackets": "Where the value lies with 95 %, by drawing prompts again and again from those that were asked. Prompts differ among each "
    "other, so two speeds may overlap while their ratio, taken prompt by prompt, is certain.",
    "accepted %": "Share of the drafts of which the token at this position was accepted, 0 being the first, and its standard error. A "
    "position counts only if all before it were accepted.",
    "ceiling": "1 + the shares accepted: tokens an engine step yields, and so many times as fast if drafting and verifying took no time. "
    "What is missing to it is what they take.",
    "skipped": "Not measured, since it cannot come out best even under favourable assumptions. The reason stands beside it.",
}


def render(report: Mapping[str, Any]) -> str:
    """The page of a report (`report.py`)."""
    return fill(
        "bench/page.html.j2",
        title=f"Speculation measured: {words.recipes(report)}",
        made=report["made"],
        signs=SIGNS,
        columns=words.COLUMNS,
        published_columns=words.PUBLISHED_COLUMNS,
        meanings=MEANINGS,
        hosts=[_host(name, host, f"c{index}") for index, (name, host) in enumerate(report["hosts"].items())],
    )


def _host(name: str, host: Mapping[str, Any], key: str) -> dict[str, Any]:
    sweep = host["sweep"]
    shown: dict[str, Any] = {"name": name, "state": _state(host), "outcome": words.outcome(host), "loads": []}
    shown |= dict.fromkeys(("reasons", "kinds", "published", "conditions"))
    if sweep:
        shown["reasons"] = list(words.reasons(host))
        shown["loads"] = [_load(load, f"{key}-{load['concurrency']}") for load in host["loads"]]
        shown["kinds"] = _kinds(host["loads"])
        shown["published"] = _published(sweep.get("published"))
        shown["conditions"] = words.conditions(sweep)
    return shown


def _state(host: Mapping[str, Any]) -> str:
    if host["failure"]:
        return FAILED
    return "compared" if host["sweep"]["proposal"] is None else "proposed"


def _load(load: Mapping[str, Any], key: str) -> dict[str, Any]:
    rows, streams = load["rows"], words.streams(load["concurrency"])
    figures = [_speeds(rows, streams, key), _acceptance(rows, streams, key), _ceilings(rows, streams, key)]
    return {
        "streams": streams,
        "decides": load["decides"],
        "figures": [figure for figure in figures if figure],
        "rows": [
            {"proposed": row["proposed"], "cells": list(words.cells(row).values())}
            for row in rows
            if row["index"] is not None
        ],
    }


# -- charts


def _figure(title: str, legend: Iterable[str], drawing: str) -> dict[str, str]:
    return {"title": title, "legend": ". ".join(part for part in legend if part), "drawing": drawing}


def _mark(rows: Iterable[Mapping[str, Any]], key: str) -> str:
    return PUBLISHED if any((row["published"] or {}).get(key) for row in rows) else ""


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['name']} · proposed" if row["proposed"] else str(row["name"])


def _text(row: Mapping[str, Any], value: str, figure: str) -> str:
    """The text at a bar: its value, or why there is none, and the published figure."""
    shown = value if row["load"] else row["state"] if row["state"] != MEASURED else "not under this load"
    return f"{shown}  ◇ {figure}" if figure else shown


def _speed(row: Mapping[str, Any]) -> str:
    return UNMEASURABLE if row["state"] == UNMEASURABLE else words.number(row["tokens_per_second"])


def _speeds(rows: Sequence[Mapping[str, Any]], streams: str, key: str) -> dict[str, str]:
    bars = []
    for row in rows:
        figure = (row["published"] or {}).get("tokens_per_second")
        if row["index"] is None and not figure:
            continue
        bars.append(
            Bar(
                _name(row),
                _text(row, _speed(row), words.number(figure) if figure else ""),
                row["tokens_per_second"],
                row["interval"] and tuple(row["interval"]),
                mark=figure,
                strong=row["proposed"],
            )
        )
    drawing = chart.draw(f"{key}-speed", f"Tokens a second by depth, {streams}", bars, "{:g}".format)
    legend = ["tok/s", "Line: interval of 95 %", _mark(rows, "tokens_per_second")]
    return _figure("Tokens a second", legend, drawing)


def _acceptance(rows: Sequence[Mapping[str, Any]], streams: str, key: str) -> dict[str, str] | None:
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
        return None
    drawing = chart.draw(
        f"{key}-rates", f"Accepted drafts by position, {streams}", bars, lambda rate: f"{100 * rate:g} %"
    )
    legend = ["Share of the drafts", "Line: one standard error to either side", _mark(rows, "rates")]
    return _figure("Accepted by position", legend, drawing)


def _ceilings(rows: Sequence[Mapping[str, Any]], streams: str, key: str) -> dict[str, str] | None:
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
    if not any(one.value for one in bars):
        return None
    drawing = chart.draw(
        f"{key}-ratio", f"Ratio to off beside its ceiling, {streams}", bars, "{:g}".format, level=1.0
    )
    legend = [
        "Full: times as fast as off",
        "Dashed: the ceiling 1 + acceptance",
        "Line: interval of 95 %",
        _mark(rows, "ratio"),
    ]
    return _figure("Reached, and the ceiling", legend, drawing)


# -- tables


def _published(published: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Somebody else's figures, alone and with their source."""
    if not published:
        return None
    return {
        "source": words.source(published),
        "paid": words.paid(published),
        "rows": [list(texts) for texts in words.published(published)],
    }


def _kinds(loads: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Prompts by kind under the first load, which a mean over all of them hides. If a load is not measurable, none of its kinds is."""
    rows = [row for row in loads[0]["rows"] if row["load"]] if loads else []
    kinds = {kind: None for row in rows for kind in row["load"]["kinds"]}
    if not kinds:
        return None
    return {
        "streams": words.streams(loads[0]["concurrency"]),
        "heads": ["kind of prompt", *(row["name"] for row in rows)],
        "rows": [[kind, *(_kind(row, row["load"]["kinds"].get(kind)) for row in rows)] for kind in kinds],
    }


def _kind(row: Mapping[str, Any], shown: Mapping[str, Any] | None) -> str:
    if shown is None:
        return words.NONE
    rates = " ".join(f"{100 * rate:.0f}" for rate in shown["rates"])
    doubted = row["state"] == UNMEASURABLE
    speed = UNMEASURABLE if doubted else f"{shown['rate']['tokens_per_second']:.1f}"
    return speed + (f" at {rates} %" if rates else "")
