# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One value over time as an SVG image inside a page. `chart.svg.j2` draws it. Pure.

The axis of values begins at 0. Where there is no value, the line has a gap. Colours come from the page's style.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ..report.axis import axis
from ..report.page import render
from .report import clock

WIDTH, HEIGHT = 340, 96
"""In the units of the drawing, which are pixels on a phone."""
LEFT, RIGHT, TOP = 52, 334, 8
"""Where the lines are. The values of the axis stand on their left."""
TICKS = 3


@dataclass(frozen=True)
class Line:
    """Values at equal distances, None where there is none."""

    title: str
    values: Sequence[float | None]
    start: float
    """Unix time of the first value."""
    step: float
    """Seconds between two values."""
    number: Callable[[float], str]
    """The text of a value."""
    most: float | None = None
    """Where the axis ends; None: at a round number above all values."""
    level: float | None = None
    """A value to draw a dashed line at."""
    level_name: str = ""

    def at(self, index: int) -> str:
        """Time of a value: 23:50."""
        return clock(self.start + index * self.step)[11:16]

    @property
    def known(self) -> list[tuple[int, float]]:
        return [(index, value) for index, value in enumerate(self.values) if value is not None]


def legend(line: Line) -> str:
    """What the drawing shows, in words."""
    known = line.known
    if not known:
        return "No values in this day."
    low, high = (choose(known, key=lambda pair: pair[1]) for choose in (min, max))
    last, value = known[-1]
    said = f"{line.number(value)} at {line.at(last)}. "
    said += f"Lowest {line.number(low[1])} at {line.at(low[0])}, highest {line.number(high[1])} at {line.at(high[0])}."
    if line.level is not None:
        said += f" Dashed: {line.level_name} {line.number(line.level)}."
    missing = len(line.values) - len(known)
    return said + (f" {missing} of {len(line.values)} points have no value." if missing else "")


def draw(key: str, line: Line) -> Markup:
    """A chart of a line with at least one value.

    :param key: unique in the page
    """
    top, step = axis([line.level, *line.values], TICKS)
    if line.most is not None:
        top, step = line.most, line.most / 2

    def x(index: float) -> float:
        return round(LEFT + (RIGHT - LEFT) * index / max(len(line.values) - 1, 1), 1)

    def y(value: float) -> float:
        return round(HEIGHT - (HEIGHT - TOP) * min(max(value / top, 0.0), 1.0), 1)

    middle, end = (len(line.values) - 1) / 2, len(line.values) - 1
    values = {
        "key": key,
        "title": line.title,
        "said": legend(line),
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "right": RIGHT,
        "grid": [(y(tick * step), line.number(tick * step)) for tick in range(round(top / step) + 1)],
        "times": [
            (x(0), "start", line.at(0)),
            (x(middle), "middle", line.at(round(middle))),
            (x(end), "end", line.at(end)),
        ],
        "path": "".join(_strokes(line.values, x, y)),
        "level": None if line.level is None else y(line.level),
    }
    # The template has escaped every text in it.
    return Markup(render("status/chart.svg.j2", **values))  # noqa: S704


def _strokes(
    values: Sequence[float | None], x: Callable[[float], float], y: Callable[[float], float]
) -> Iterator[str]:
    """A stroke for each run of values. A value alone is a stroke without length, which shows as a point."""
    drawing = False
    for index, value in enumerate(values):
        if value is not None:
            yield f"L{x(index)} {y(value)}" if drawing else f"M{x(index)} {y(value)}h0"
        drawing = value is not None
