# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A job may take as long as its module: both have the same defaults, in two places, since a controller lacks what the module imports."""

from __future__ import annotations

import pytest
from ansible_collections.sparkfleet.vllm.plugins.action import spec_decode_assert, spec_decode_bench
from ansible_collections.sparkfleet.vllm.plugins.modules import spec_decode_assert as asserts
from ansible_collections.sparkfleet.vllm.plugins.modules import spec_decode_bench as measures


@pytest.mark.parametrize(("action", "module"), [(spec_decode_assert, asserts), (spec_decode_bench, measures)])
def test_the_limits_of_the_action_are_those_of_its_module(action, module):
    front, spec = action.ActionModule, module.ARGUMENT_SPEC
    assert tuple(spec[name]["default"] for name in ("ready_timeout", "measure_timeout")) == (
        front.READY,
        front.MEASURE,
    )
    assert front.MODULE.rpartition(".")[2] == module.__name__.rpartition(".")[2]
