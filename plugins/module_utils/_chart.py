# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bars with intervals, outlines and marks, as one piece of SVG inside a page. Pure.

Bars lie, each under its name and its value in words: on a phone as on a wide screen names stay readable, and nothing has to be
read off. Colours come from the page's style. Bars begin at 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, ROW, HEADING = 340, 38, 24
"""In the units of the drawing, which are pixels on a phone."""
LEFT, RIGHT = 6, 334
TICKS = 5
STYLE = """
.chart{display:block;width:100%;max-width:34rem;height:auto}
.chart text{fill:var(--text);font-size:12px}.chart .tick,.chart .heading{fill:var(--soft);font-size:11px}
.chart .strong{font-weight:700}.chart .grid{stroke:var(--line)}.chart .level{stroke:var(--soft);stroke-dasharray:3 3}
.chart .bar{fill:var(--bar)}.chart .bar.strong{fill:var(--bar-strong)}
.chart .outline{fill:none;stroke:var(--soft);stroke-dasharray:4 2}
.chart .whisker{stroke:var(--text);stroke-width:1.5;fill:none}
.chart .halo{stroke:var(--card);stroke-width:4.5;fill:none}
.chart .mark{fill:var(--card);stroke:var(--text);stroke-width:1.5}
"""


@dataclass(frozen=True)
class Bar:
    """One row. Without a value there is no bar, and `text` says why."""

    name: str
    text: str = ""
    value: float | None = None
    interval: tuple[float, float] | None = None
    outline: float | None = None
    """An empty, dashed bar around: what the value could be at most."""
    mark: float | None = None
    """A diamond: a figure of somebody else."""
    strong: bool = False
    heading: bool = False
    """No bar, but the name of those below."""


def draw(
    key: str, title: str, bars: Sequence[Bar], number: Callable[[float], str], level: float | None = None
) -> str:
    """A chart.

    :param key: unique in the page
    :param title: for who does not see it; the rows' names and texts are read out after it
    :param number: the text of a value on the axis
    :param level: a value to draw a dashed line at, over all rows
    """
    top, step = _axis([level, *(end for each in bars for end in _ends(each))])

    def x(value: float) -> float:
        return round(LEFT + (RIGHT - LEFT) * value / top, 1)

    height = sum(HEADING if each.heading else ROW for each in bars)
    lines = []
    for tick in range(round(top / step) + 1):
        place = x(tick * step)
        anchor = "start" if tick == 0 else "end" if place == RIGHT else "middle"
        lines.append(f'<path class="grid" d="M{place} 0V{height}"/>')
        lines.append(
            f'<text class="tick" x="{place}" y="{height + 14}" text-anchor="{anchor}">{escape(number(tick * step))}</text>'
        )
    y = 0
    for each in bars:
        lines.append(_row(each, y, x))
        y += HEADING if each.heading else ROW
    if level is not None:
        lines.append(f'<path class="level" d="M{x(level)} 0V{height}"/>')
    said = "; ".join(f"{each.name}: {each.text}" if each.text else each.name for each in bars)
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height + 20}" role="img" aria-labelledby="{key}-title {key}-text">'
        f'<title id="{key}-title">{escape(title)}</title><desc id="{key}-text">{escape(said)}</desc>{"".join(lines)}</svg>'
    )


def _row(each: Bar, y: int, x: Callable[[float], float]) -> str:
    if each.heading:
        return f'<text class="heading" x="{LEFT}" y="{y + 17}">{escape(each.name)}</text>'
    strong = " strong" if each.strong else ""
    parts = [
        f'<text class="name{strong}" x="{LEFT}" y="{y + 14}">{escape(each.name)}</text>',
        f'<text class="value{strong}" x="{RIGHT}" y="{y + 14}" text-anchor="end">{escape(each.text)}</text>',
    ]
    upper, middle, height = y + 20, y + 26, 12
    if each.outline is not None:
        parts.append(
            f'<rect class="outline" x="{LEFT}" y="{upper - 1}" width="{x(each.outline) - LEFT:.1f}" height="{height + 2}"/>'
        )
    if each.value is not None:
        parts.append(
            f'<rect class="bar{strong}" x="{LEFT}" y="{upper}" width="{x(each.value) - LEFT:.1f}" height="{height}"/>'
        )
    if each.interval is not None:
        low, high = map(x, each.interval)
        path = f"M{low} {middle}H{high}M{low} {middle - 4}v8M{high} {middle - 4}v8"
        # The line has an edge of its own: it lies half on the bar and half beside it.
        parts += [f'<path class="{kind}" d="{path}"/>' for kind in ("halo", "whisker")]
    if each.mark is not None:
        parts.append(f'<path class="mark" d="M{x(each.mark)} {middle - 6}l6 6l-6 6l-6 -6z"/>')
    return "".join(parts)


def _ends(each: Bar) -> list[float | None]:
    return [each.value, each.outline, each.mark, *(each.interval or ())]


def _axis(values: Sequence[float | None]) -> tuple[float, float]:
    """Where the axis ends and how far its ticks are apart: round numbers, at most :data:`TICKS` of them and 0."""
    most = max((value for value in values if value), default=1.0)
    rough = most / TICKS
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough * (1 - 1e-9))
    return step * math.ceil(most / step - 1e-9), step
