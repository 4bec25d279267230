# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host is in its unit, as the task of the role asks for it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.sparkfleet.vllm.plugins.action import serving_member
from ansible_collections.sparkfleet.vllm.plugins.module_utils._common import sources
from ansible_collections.sparkfleet.vllm.plugins.module_utils._unit import install
from helpers import actions, unit

FLEET = {"spark-1": unit.host(), "spark-2": unit.host(address="192.0.2.2"), "gate-1": {}}
AMONG = ["spark-1", "spark-2"]


def member(host: str, hosts: Any = None, **over: Any) -> dict[str, Any]:
    asked: dict[str, Any] = {"nodes": 2, "among": AMONG, "store": "/srv/s"} | over
    return actions.run(serving_member, hosts or FLEET, current=host, **asked)


def test_the_program_lies_where_a_host_puts_it() -> None:
    program = f"/srv/s/supervisor/{sources.sha256(sources.files(install.ENTRY))}"
    assert member("spark-2") == {"changed": False, "member": unit.member(1, supervisor=program)}


def test_the_given_order_is_the_rank() -> None:
    assert member("spark-2", among=AMONG[::-1])["member"]["rank"] == 0


def test_a_recipe_for_one_spark_reads_no_other_host() -> None:
    class Nobody(dict[str, Any]):
        def __getitem__(self, host: str) -> Any:
            raise AssertionError(host)

    assert member("spark-1", Nobody(FLEET), nodes="1") == {"changed": False, "member": {}}


def test_a_host_that_is_lost_is_still_in_the_run_and_one_that_was_left_out_is_not() -> None:
    assert member("spark-1", lost="spark-2")["member"]["nodes"] == 2
    with pytest.raises(AnsibleActionFail, match="seen none of spark-2; a unit changes as one"):
        member("spark-1", played=["spark-1"])
