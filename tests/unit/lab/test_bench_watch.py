# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `make bench-watch` makes of what it counts."""

from __future__ import annotations

import sys

import pytest
from helpers.recipe import ROOT

sys.path[:0] = [str(ROOT / "molecule/lab"), str(ROOT / "molecule/lab/bench")]

import bench_watch as bench


def test_what_the_spark_takes_anyway_is_no_cost() -> None:
    # 20 times 0.25 s of work beside half a core for 30 s; 180 times an hour
    assert bench.cost(20.0, 30.0, 0.5, 20, 20.0) == pytest.approx(0.25 * 180)
    assert bench.cost(14.9, 30.0, 0.5, 20, 20.0) == 0.0


def test_what_is_lost_is_divided_by_how_much_more_often_it_was_done() -> None:
    assert bench.share([11.0, 9.0], [10.0, 10.0], 20) == pytest.approx([0.005, -0.005])


def test_a_round_without_its_other_half_is_no_round() -> None:
    with pytest.raises(ValueError, match="shorter"):
        bench.share([11.0, 9.0], [10.0], 20)
