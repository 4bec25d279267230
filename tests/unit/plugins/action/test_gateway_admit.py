# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which servers a run lets in, and what becomes of a gateway that does not answer."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible_collections.sparkfleet.vllm.plugins.action import gateway_admit
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.at_gateway import AtGateway
from helpers import actions

SERVED = {"gate": {"served_model": "a/chat", "base_url": "http://192.0.2.1:8000"}}


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    seen: list[dict[str, Any]] = []

    def execute(self: AtGateway, module_args: dict[str, Any], **_rest: Any) -> dict[str, Any]:
        seen.append(module_args)
        return {"changed": False}

    monkeypatch.setattr(AtGateway, "_execute_module", execute)
    monkeypatch.setattr("ansible.plugins.action.ActionBase.run", lambda self, tmp=None, task_vars=None: {})
    return seen


def test_those_of_the_play_that_passed_are_let_in(executed: list[dict[str, Any]]) -> None:
    actions.run(
        gateway_admit,
        {
            "spark-1": {"spark_served": SERVED, "spark_address": "192.0.2.1"},
            "spark-2": {"spark_served": SERVED, "spark_failure": {"msg": "no"}},
            "spark-3": {},
            "spark-4": {"spark_served": SERVED | {"unit": {"rank": 0}}, "ansible_host": "192.0.2.4"},
            # A worker answers nobody.
            "spark-5": {"spark_served": SERVED | {"unit": {"rank": 1}}, "ansible_host": "192.0.2.5"},
        },
    )
    assert [(each["name"], each["address"], each["port"]) for each in executed[0]["servers"]] == [
        ("spark-1", "192.0.2.1", 8000),
        ("spark-4", "192.0.2.4", 8000),
    ]
    # As the plan of a gateway names the pool of that model.
    assert executed[0]["servers"][0]["pool"].startswith("a-chat-")


def test_only_the_named_ones(executed: list[dict[str, Any]]) -> None:
    hosts = {name: {"spark_served": SERVED} for name in ("spark-1", "spark-2")}
    actions.run(gateway_admit, hosts, sparks=["spark-2"])
    assert [each["name"] for each in executed[0]["servers"]] == ["spark-2"]


def test_a_gateway_that_does_not_answer_does_not_make_the_spark_a_lost_one(
    executed: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(self: AtGateway, **_rest: Any) -> dict[str, Any]:
        raise AnsibleConnectionFailure("no route to host")

    monkeypatch.setattr(AtGateway, "_execute_module", lost)
    with pytest.raises(AnsibleConnectionFailure):
        actions.run(gateway_admit, {})
    with pytest.raises(AnsibleActionFail, match="gateway gate-1, seen: no route to host; do: mend it, or"):
        actions.run(gateway_admit, {}, delegated="gate-1")
