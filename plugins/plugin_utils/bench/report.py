# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of a benchmark or a sweep: what was measured on all hosts, beside what was published. Pure.

The shape of a report is in docs/speculation.md; benchmark.json is a report, benchmark.md and benchmark.html are made from one.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import statistics

VERSION = 1
NOTHING = "nothing was measured"
UNMEASURED = "not measured here"
"""State of a row with no figure but somebody else's."""
COLUMNS = ("speculation", "tok/s", "times off", "ceiling", "accepted %", "first token", "KV", "remarks")
PUBLISHED_COLUMNS = ("published", "tok/s", "times off", "accepted %")
NONE = "–"


def report(looks: Mapping[str, Mapping[str, Any]], *, made: str) -> dict[str, Any]:
    """The report.

    :param looks: by host: ``sweep`` (None without one) and ``failure`` (why it is missing or not whole, else empty)
    :param made: when, in ISO 8601
    """
    return {
        "version": VERSION,
        "made": made,
        "hosts": {
            host: {
                "failure": look["failure"] or ("" if look["sweep"] else NOTHING),
                "sweep": look["sweep"],
                "loads": loads(look["sweep"]) if look["sweep"] else [],
            }
            for host, look in looks.items()
        },
    }


def recipes(made: Mapping[str, Any]) -> str:
    """The recipes of all hosts."""
    names = {host["sweep"]["recipe"]: None for host in made["hosts"].values() if host["sweep"]}
    return ", ".join(names) or "no recipe"


# -- figures


def loads(sweep: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For each load, what all candidates showed under it: off, then each draft from shallow to deep, whatever was measured first.

    Published figures stand beside the load of one stream: at off, and at the draft that the sweep had first, which is the recipe's
    own. A depth that was published and is no candidate has its own row.

    :returns: ``[{concurrency, decides, rows}]``, rows as :func:`_row` gives them, with ``index`` of the candidate, ``proposed`` and
        ``published``. A candidate is proposed for the load that decides, and for no other
    """
    candidates, proposal = sweep["candidates"], sweep["proposal"] or {}
    measured: dict[int, dict[int, Mapping[str, Any]]] = {}
    for index, candidate in enumerate(candidates):
        for load in (candidate["measurement"] or {"loads": []})["loads"]:
            measured.setdefault(load["concurrency"], {})[index] = load
    made = []
    for concurrency, known in measured.items():
        rows = _rows(candidates, known, sweep.get("published") if concurrency == 1 else None)
        decides = concurrency == proposal.get("concurrency")
        for row in rows:
            row["proposed"] = decides and row["index"] == proposal["index"]
        made.append({"concurrency": concurrency, "decides": decides, "rows": rows})
    return made


def order(speculations: Sequence[Mapping[str, Any] | None]) -> list[int]:
    """Indices: off first, then each draft in the order of its first appearance, from shallow to deep."""
    drafts = [statistics.draft(speculation) for speculation in speculations]

    def place(index: int) -> tuple[bool, int, int]:
        speculation = speculations[index]
        return speculation is not None, drafts.index(drafts[index]), statistics.depth(speculation)

    return sorted(range(len(speculations)), key=place)


def _rows(
    candidates: Sequence[Mapping[str, Any]],
    loads: Mapping[int, Mapping[str, Any]],
    published: Mapping[str, Any] | None,
) -> list[dict[str, Any]]:
    speculations = [candidate["speculation"] for candidate in candidates]
    told = statistics.shown(speculations, loads)
    names, figures = called(speculations), _published(published)
    own = next((speculation for speculation in speculations if speculation), None)
    rows = []
    for index in order(speculations):
        known = _known(candidates[index], told.doubts.get(index))
        row = _row(names[index], known, told.points.get(index), told.off, loads.get(index))
        theirs = speculations[index] is None or statistics.draft(speculations[index]) == statistics.draft(own)
        figure = figures.pop(statistics.depth(speculations[index]), None) if theirs else None
        rows.append(row | {"index": index, "published": figure})
    for tokens, figure in figures.items():
        alone = {"state": UNMEASURED, "because": ""}
        row = _row(f"n={tokens}" if tokens else statistics.OFF, alone, None, None, None)
        rows.append(row | {"index": None, "published": figure})
    return rows


def _known(candidate: Mapping[str, Any], doubt: str | None) -> Mapping[str, Any]:
    """State and reason of a candidate under one load."""
    return candidate if doubt is None else {"state": statistics.UNMEASURABLE, "because": doubt}


def _row(
    name: str,
    candidate: Mapping[str, Any],
    point: statistics.Point | None,
    off: statistics.Point | None,
    load: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """One candidate under one load. A value is None if it was not measured, is not measurable, or has nothing to compare with.

    ``tokens_per_second`` is the figure that decides (plugin_utils/bench/statistics.py), ``ratio`` compares it with off, and both have an
    ``interval`` of 95 %. ``load`` is the load as measured.
    """
    many = point is not None and len(point.seconds) > 1
    speed = statistics.alone(point) if point and many else None
    ratio = statistics.compare(point, off) if point and off and statistics.comparable(point, off) else None
    return {
        "name": name,
        "state": candidate["state"],
        "because": candidate["because"],
        "tokens_per_second": point.speed if point else None,
        "interval": [speed.low, speed.high] if speed else None,
        "ratio": ratio.value if ratio else None,
        "ratio_interval": [ratio.low, ratio.high] if ratio else None,
        "ceiling": statistics.ceiling(load["rates"]) if load else None,
        "load": load,
    }


def _published(published: Mapping[str, Any] | None) -> dict[int, dict[str, Any]]:
    """{depth: its published figures, with their ratio to the published figure of off}"""
    figures = {figure["num_speculative_tokens"]: figure for figure in (published or {}).get("figures") or []}
    off = figures.get(0, {}).get("tokens_per_second")
    return {
        tokens: {
            "tokens_per_second": figure.get("tokens_per_second"),
            "ratio": figure["tokens_per_second"] / off if off and figure.get("tokens_per_second") else None,
            "rates": list(figure.get("rates") or []),
        }
        for tokens, figure in sorted(figures.items())
    }


def called(speculations: Sequence[Mapping[str, Any] | None]) -> list[str]:
    """Distinct names of candidates: with the draft's model, if method and depth are the same."""
    plain = [statistics.called(speculation) for speculation in speculations]
    counts = Counter(plain)
    return [
        f"{name} {posixpath.basename(speculation['model'])}"
        if counts[name] > 1 and speculation and speculation.get("model")
        else name
        for name, speculation in zip(plain, speculations, strict=True)
    ]


# -- words


def streams(concurrency: int) -> str:
    return "one stream" if concurrency == 1 else f"{concurrency} streams"


def number(value: float | None, digits: int = 1) -> str:
    return NONE if value is None else f"{value:.{digits}f}"


def within(value: float | None, interval: Sequence[float] | None, digits: int) -> str:
    """A value with its interval, where it has one."""
    ends = "" if interval is None else f" ({interval[0]:.{digits}f} to {interval[1]:.{digits}f})"
    return number(value, digits) + ends


def speed(row: Mapping[str, Any]) -> str:
    """The tok/s of a row, or the text that there is none to measure."""
    if row["state"] == statistics.UNMEASURABLE:
        return statistics.UNMEASURABLE
    return within(row["tokens_per_second"], row["interval"], 1)


def accepted(load: Mapping[str, Any] | None) -> str:
    """Shares by position, in percent, each with its standard error."""
    if not load or not load["rates"]:
        return NONE
    pairs = zip(load["rates"], load["standard_errors"], strict=True)
    return "  ".join(f"{100 * rate:.1f}±{100 * error:.1f}" for rate, error in pairs)


def remarks(row: Mapping[str, Any]) -> str:
    """What a row is, whose clock measured it, and who else was there."""
    if row["state"] not in (statistics.MEASURED, statistics.UNMEASURABLE):
        return str(row["state"])
    if row["load"] is None:
        return "not under this load"
    parts = [str(row["state"])] if row["state"] == statistics.UNMEASURABLE else []
    if row["proposed"]:
        parts.append(f"proposed for {streams(row['load']['concurrency'])}")
    if row["tokens_per_second"] and row["load"]["rate"]["witnesses"] == 1:
        parts.append("one witness")
    if row["load"]["foreign_share"]:
        parts.append(f"{row['load']['foreign_share']:.0%} of the tokens were for others")
    return "; ".join(parts)


def reasons(host: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Name, state and reason of each candidate without a measurement, and of each without a rate under a load."""
    candidates = host["sweep"]["candidates"]
    names = called([candidate["speculation"] for candidate in candidates])
    found = [
        (names[index], candidates[index]["state"], candidates[index]["because"])
        for index in order([candidate["speculation"] for candidate in candidates])
        if not candidates[index]["measurement"]
    ]
    return found + [
        (f"{row['name']}, {streams(load['concurrency'])}", row["state"], row["because"])
        for load in host["loads"]
        for row in load["rows"]
        if row["state"] == statistics.UNMEASURABLE
    ]


def decided_for(proposal: Mapping[str, Any]) -> str:
    """The load that a proposal is for."""
    kinds = list(proposal["kinds"])
    listed = f"{', '.join(kinds[:-1])} and {kinds[-1]} together" if len(kinds) > 1 else kinds[0]
    return f"{streams(proposal['concurrency'])} of {listed}"


def outcome(host: Mapping[str, Any]) -> str:
    """The result of a host, in a sentence."""
    if host["failure"]:
        return str(host["failure"])
    proposal = host["sweep"]["proposal"]
    if proposal is None:
        why = (host["sweep"]["settings"] or {}).get("no_proposal")
        return "compared; nothing is proposed" + (f": {why}" if why else "")
    return f"proposed for {decided_for(proposal)}: {proposal['because']}"


def cells(row: Mapping[str, Any]) -> dict[str, str]:
    """A row as text, keyed by :data:`COLUMNS`."""
    load = row["load"]
    usage = load["kv_cache_usage"] if load else None
    return {
        "speculation": row["name"],
        "tok/s": speed(row),
        "times off": within(row["ratio"], row["ratio_interval"], 2),
        "ceiling": number(row["ceiling"], 2),
        "accepted %": accepted(load),
        "first token": f"{load['time_to_first_token']['median']:.2f} s" if load else NONE,
        "KV": NONE if usage is None else f"{usage:.0%}",
        "remarks": remarks(row),
    }


def published(given: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """What a recipe has as published, as rows of :data:`PUBLISHED_COLUMNS`."""
    return [
        (
            f"n={tokens}" if tokens else statistics.OFF,
            number(figure["tokens_per_second"]),
            number(figure["ratio"], 2),
            "  ".join(f"{100 * rate:.0f}" for rate in figure["rates"]) or NONE,
        )
        for tokens, figure in _published(given).items()
    ]


def source(given: Mapping[str, Any]) -> str:
    return f"Source: {given.get('source') or 'not said'}"


def paid(given: Mapping[str, Any]) -> str:
    """The depth up to which it paid, as published; empty if nothing is said of it."""
    if given.get("deepest") is None:
        return ""
    because = f": {given['because']}" if given.get("because") else ""
    return f"Deepest that paid, as published: n={given['deepest']}{because}"


# -- Markdown


def markdown(made: Mapping[str, Any]) -> str:
    """The report for a repository or a ticket."""
    lines = [
        f"# Speculation measured: {_plain(recipes(made))}",
        "",
        f"{_plain(made['made'])}. {_plain(LEGEND)}",
    ]
    for name, host in made["hosts"].items():
        lines += ["", f"## {_plain(name)}", "", _plain(outcome(host))]
        if host["sweep"]:
            told = [f"- {_plain(f'{what} {state}: {because}')}" for what, state, because in reasons(host)]
            lines += [*(["", *told] if told else []), "", _plain(conditions(host["sweep"]))]
        for load in host["loads"]:
            decides = ", which decides" if load["decides"] else ""
            lines += ["", f"### {streams(load['concurrency']).capitalize()}{decides}", ""]
            lines += _table(
                COLUMNS, [cells(row).values() for row in load["rows"] if row["index"] is not None]
            )
        given = (host["sweep"] or {}).get("published")
        if given:
            lines += [
                "",
                "### Published, not measured here",
                "",
                f"{_plain(source(given))}. {_plain(paid(given))}",
                "",
            ]
            lines += _table(PUBLISHED_COLUMNS, published(given))
    return "\n".join([*lines, ""])


LEGEND = (
    "tok/s: of one stream, tokens over decode seconds of all prompts together; of several, the throughput of the load. In brackets: "
    "the interval of 95 %. Not measurable: the client's clock and the server's contradict each other, or the acceptance does not allow "
    "it. One witness: the server's clock says nothing of these requests alone. Ceiling: 1 + the shares accepted, so many times as fast "
    "if drafting and verifying took no time. "
    "Accepted: percent of the drafts by position, with standard error."
)


def conditions(sweep: Mapping[str, Any]) -> str:
    """Recipe, hardware and settings in a line."""
    pairs = {"recipe": sweep["recipe"], **(sweep["hardware"] or {}), **(sweep["settings"] or {})}
    return ", ".join(f"{name} {_said(value)}" for name, value in pairs.items() if value not in ("", None))


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_said(inner)}" for name, inner in value.items())
    if isinstance(value, (list, tuple)):
        return " ".join(map(_said, value))
    return str(value)


def _table(heads: Sequence[str], rows: Iterable[Iterable[str]]) -> list[str]:
    lines = [map(_plain, heads), ["---"] * len(heads), *(map(_plain, row) for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def _plain(text: str) -> str:
    """Text in one line that Markdown shows unchanged."""
    return re.sub(r"([\\`*_\[\]<>|#&~])", r"\\\1", " ".join(text.split()))
