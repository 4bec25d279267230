# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Places bars with intervals, outlines and marks for one SVG image inside a page. `chart.svg.j2` draws it. Pure.

Bars are horizontal, each below its name and its value in words. So names stay readable on a phone as on a wide screen, and nobody has to
read a value off the axis. Colours come from the page's style. Bars begin at 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ..report.axis import axis
from ..report.page import render

WIDTH, ROW, HEADING = 340, 38, 24
"""In the units of the drawing, which are pixels on a phone."""
LEFT, RIGHT = 6, 334


@dataclass(frozen=True)
class Bar:
    """One row. Without a value there is no bar, and `text` says why."""

    name: str
    text: str = ""
    value: float | None = None
    interval: tuple[float, float] | None = None
    outline: float | None = None
    """An empty, dashed bar around: the largest value that is possible."""
    mark: float | None = None
    """A diamond: somebody else's figure."""
    strong: bool = False
    heading: bool = False
    """No bar, but the name of the bars below."""


def draw(
    key: str, title: str, bars: Sequence[Bar], number: Callable[[float], str], level: float | None = None
) -> Markup:
    """A chart.

    :param key: unique in the page
    :param title: for readers who do not see it; the rows' names and texts are read out after it
    :param number: the text of a value on the axis
    :param level: a value to draw a dashed line at, over all rows
    """
    top, step = axis([level, *(end for one in bars for end in _ends(one))])

    def x(value: float) -> float:
        return round(LEFT + (RIGHT - LEFT) * value / top, 1)

    values = {
        "key": key,
        "title": title,
        "width": WIDTH,
        "left": LEFT,
        "right": RIGHT,
        "height": sum(map(_height, bars)),
        "said": "; ".join(f"{one.name}: {one.text}" if one.text else one.name for one in bars),
        "ticks": [_tick(tick * step, x, number) for tick in range(round(top / step) + 1)],
        "rows": list(_rows(bars, x)),
        "level": None if level is None else x(level),
    }
    # The template has escaped every text in it.
    return Markup(render("bench/chart.svg.j2", **values))  # noqa: S704


def _tick(value: float, x: Callable[[float], float], number: Callable[[float], str]) -> dict[str, Any]:
    place = x(value)
    anchor = "start" if value == 0 else "end" if place == RIGHT else "middle"
    return {"x": place, "anchor": anchor, "text": number(value)}


def _rows(bars: Sequence[Bar], x: Callable[[float], float]) -> Iterator[dict[str, Any]]:
    """Each bar with its place: y of its upper edge, and x or width of each of its values."""
    y = 0
    for one in bars:
        yield {
            "bar": one,
            "y": y,
            "width": _length(one.value, x),
            "outline": _length(one.outline, x),
            "interval": [x(end) for end in one.interval or ()],
            "mark": None if one.mark is None else x(one.mark),
        }
        y += _height(one)


def _height(one: Bar) -> int:
    return HEADING if one.heading else ROW


def _length(value: float | None, x: Callable[[float], float]) -> str | None:
    return None if value is None else f"{x(value) - LEFT:.1f}"


def _ends(one: Bar) -> list[float | None]:
    return [one.value, one.outline, one.mark, *(one.interval or ())]
