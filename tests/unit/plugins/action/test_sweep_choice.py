# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the sweeps of a fleet propose, as the playbook tune asks for it."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.sparkfleet.vllm.plugins.action import sweep_choice
from helpers import actions
from helpers.sweep import fleet

SWEPT = fleet()["spark-1"]["sweep"]
HOSTS: actions.Hosts = {
    "a": {"spark_sweep": SWEPT | {"changed": False}},
    "b": {},
    "lost": {"spark_sweep": SWEPT},
}


def test_the_proposal_is_that_of_the_hosts_that_answered() -> None:
    found = actions.run(sweep_choice, HOSTS, lost="lost", recipe=SWEPT["recipe"])["speculation"]
    assert (found["method"], found["num_speculative_tokens"]) == ("mtp", 1)
    assert found["measured"]["hosts"] == ["a"]


def test_a_sweep_of_another_recipe_is_refused() -> None:
    with pytest.raises(AnsibleActionFail, match="expected hosts that serve other, whose lock this is"):
        actions.run(sweep_choice, HOSTS, recipe="other")
