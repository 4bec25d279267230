# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.report.axis import axis


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (52.6, (60, 20)),
        (0.69, (0.8, 0.2)),
        (2.58, (3, 1)),
        (100, (100, 20)),
        (0.0, (1, 0.2)),
        (1.25, (1.25, 0.25)),
    ],
)
def test_the_axis_has_round_numbers_and_holds_all(most: float, expected: tuple[float, float]) -> None:
    assert axis([None, most]) == pytest.approx(expected)


def test_a_low_chart_has_fewer_ticks() -> None:
    assert axis([95.0], 3) == pytest.approx((100, 50))
