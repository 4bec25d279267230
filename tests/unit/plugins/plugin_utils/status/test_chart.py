# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A line over a day."""

from __future__ import annotations

import re
from typing import Any

from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.status import chart
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.status.chart import HEIGHT, LEFT, RIGHT, TOP
from helpers.page import parsed


def line(*values: float | None, **more: Any) -> chart.Line:
    return chart.Line("Tokens", values, 0.0, 600.0, "{:g}".format, **more)


def stroke(drawn: str) -> str:
    found = re.search(r'class="line" d="([^"]*)"', drawn)
    assert found
    return found[1]


def test_the_line_goes_from_edge_to_edge_and_from_zero_to_the_round_number_above() -> None:
    assert stroke(chart.draw("k", line(0, 100))) == f"M{LEFT}.0 {HEIGHT}.0h0L{RIGHT}.0 {TOP}.0"


def test_where_there_is_no_value_the_line_has_a_gap_and_a_value_alone_is_a_point() -> None:
    assert re.sub(r"[\d.]+ [\d.]+", "", stroke(chart.draw("k", line(1, 2, None, 3, None)))) == "Mh0LMh0"


def test_a_value_beyond_the_axis_stays_in_the_drawing() -> None:
    ys = re.findall(r"[ML][\d.]+ (-?[\d.]+)", stroke(chart.draw("k", line(-1, 5, most=1))))
    assert ys == [f"{HEIGHT}.0", f"{TOP}.0"]


def test_who_does_not_see_it_hears_what_it_shows() -> None:
    drawn = chart.draw("k", line(3, None, 1, 2, level=1.5, level_name="floor"))
    said = (
        "2 at 00:30. Lowest 1 at 00:20, highest 3 at 00:00. Dashed: floor 1.5. 1 of 4 points have no value."
    )
    assert said in drawn and 'role="img"' in drawn and 'aria-labelledby="k-title k-text"' in drawn
    assert 'class="level"' in drawn and 'class="level"' not in chart.draw("k", line(1, 2))
    parsed(drawn)


def test_a_day_without_values_says_so() -> None:
    assert chart.legend(line(None, None)) == chart.legend(line()) == "No values in this day."


def test_the_axis_of_times_has_the_first_the_middle_and_the_last() -> None:
    drawn = chart.draw("k", line(*([1.0] * 7)))
    assert re.findall(r">(\d\d:\d\d)<", drawn) == ["00:00", "00:30", "01:00"]
