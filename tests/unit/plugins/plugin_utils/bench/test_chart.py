"""Charts: what is drawn where."""

from __future__ import annotations

import re

from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.bench.chart import LEFT, RIGHT, Bar, draw
from helpers.page import parsed


def drawn(*bars, level=None):
    svg = str(draw("k", "title", bars, "{:g}".format, level))
    return svg, parsed(svg)


def width(svg, kind):
    return [float(value) for value in re.findall(rf'class="{kind}"[^>]* width="([\d.]+)"', svg)]


def test_bars_begin_at_nothing_and_are_as_long_as_their_values():
    svg, _page = drawn(Bar("a", "50", 50.0), Bar("b", "100", 100.0, strong=True))
    assert width(svg, "bar") == [(RIGHT - LEFT) / 2] and width(svg, "bar strong") == [RIGHT - LEFT]


def test_interval_outline_mark_and_level_stand_at_their_values():
    svg, _page = drawn(Bar("a", "1.3", 1.0, interval=(0.5, 1.5), outline=2.0, mark=1.25), level=1.0)
    unit = (RIGHT - LEFT) / 2
    assert f'class="whisker" d="M{LEFT + 0.5 * unit} 26H{LEFT + 1.5 * unit}' in svg
    assert width(svg, "outline") == [2 * unit]
    assert f'class="mark" d="M{LEFT + 1.25 * unit} ' in svg
    assert f'class="level" d="M{LEFT + unit} 0' in svg


def test_what_has_no_value_has_no_bar_and_says_why():
    svg, page = drawn(Bar("a", "skipped"), Bar("b", "1", 1.0))
    assert svg.count("<rect") == 1 and "skipped" in page.text


def test_who_does_not_see_it_hears_all_rows():
    svg, page = drawn(Bar("mtp n=1", heading=True), Bar("position 0", "69.0 %", 0.69))
    assert 'role="img" aria-labelledby="k-title k-text"' in svg and {"k-title", "k-text"} <= set(page.ids)
    assert "mtp n=1; position 0: 69.0 %" in page.text


def test_names_and_texts_are_text():
    hostile = '<script>"&amp;'
    _svg, page = drawn(Bar(hostile, hostile, 1.0), Bar(hostile, heading=True))
    assert "script" not in page.tags and page.text.count(hostile) == 6
