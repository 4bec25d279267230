# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of a sync as the role's tasks ask for it: from what its hosts have registered."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible_collections.sparkfleet.vllm.plugins.action import sync_plan
from helpers import actions
from helpers.fan_out import BODY, DRAFT, WHOLE, fetched, look


def hosts(**registered: dict[str, Any]) -> actions.Hosts:
    """{task: {host: what it returned}} as the variables of the hosts."""
    found: actions.Hosts = {}
    for task, results in registered.items():
        for host, result in results.items():
            found.setdefault(host, {})[f"__model_sync_{task}"] = result
    return found


def plan(known: dict[str, Any], step: str, fleet: actions.Hosts, lost: str = "") -> dict[str, Any]:
    return actions.run(sync_plan, fleet, lost=lost, known=known, step=step, fan_out=True)


LOOKS = {"one": look(), "two": look()}


def test_the_first_plan_is_made_of_the_looks_of_all_hosts() -> None:
    made = plan({}, "look", hosts(look=LOOKS, hash={"one": {"skipped": True}, "two": {}}))
    assert made["hosts"]["one"]["fetch"] == [BODY, DRAFT]
    assert made["hosts"]["two"]["later"] == [BODY, DRAFT]
    assert (made["can_fetch"], made["can_transfer"], made["incomplete"], made["changed"]) == (
        True, True, True, False,
    )  # fmt: skip


def test_a_host_that_was_lost_keeps_its_place_and_takes_no_part() -> None:
    first = plan({}, "look", hosts(look=LOOKS, hash={}))
    made = plan(first, "fetch", hosts(look=LOOKS, fetch={"one": fetched(*WHOLE)}), lost="two")
    assert made["fleet"]["two"]["excluded"] == "did not answer"
    assert made["fleet"]["one"]["hub_bytes"] == 1100
    assert not made["can_fetch"]


def test_hosts_meet_with_the_descriptions_and_a_secret_that_is_new_each_time() -> None:
    looks = {"one": look(WHOLE), "two": look()}
    first = plan({}, "look", hosts(look=looks))
    assert first["describe"] == {BODY: "one", DRAFT: "one"}
    torrents = {BODY: "of the body", DRAFT: "of the draft"}
    described = hosts(look=looks, describe={"one": {"torrents": torrents}})
    made = plan(first, "describe", described)
    assert made["torrents"] == torrents
    assert made["hosts"]["one"]["share"] == made["hosts"]["two"]["share"] == [BODY, DRAFT]
    assert len(made["swarm"]) == 64 and int(made["swarm"], 16)
    assert plan(first, "describe", described)["swarm"] != made["swarm"]


def test_a_step_that_the_role_does_not_have_is_refused() -> None:
    with pytest.raises(AnsibleError, match="look, fetch, describe, transfer"):
        plan({}, "guess", {})
