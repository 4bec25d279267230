# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The frame of the actions that compute on the controller, and how one reads the hosts of a play."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils import compute
from helpers import actions


class Twice(compute.Compute):
    ARGUMENT_SPEC: ClassVar[dict[str, Any]] = {"number": {"type": "int", "required": True}}
    REFUSALS = (ZeroDivisionError,)

    def compute(self, options: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        if not options["number"]:
            raise ZeroDivisionError("expected a number above 0, seen 0")
        return {"twice": 2 * options["number"]}


FRONT: Any = SimpleNamespace(ActionModule=Twice)


def test_options_are_converted_and_what_is_computed_changes_nothing() -> None:
    result = actions.run(FRONT, {}, number="4")
    assert (result["twice"], result["changed"], result.get("failed")) == (8, False, None)


@pytest.mark.parametrize("arguments", [{}, {"number": "many"}, {"number": 1, "colour": "red"}])
def test_options_are_checked(arguments: dict[str, Any]) -> None:
    with pytest.raises(AnsibleError, match=r"number|colour"):
        actions.run(FRONT, {}, **arguments)


def test_a_refusal_fails_the_task_with_its_text_alone() -> None:
    with pytest.raises(AnsibleActionFail) as failed:
        actions.run(FRONT, {}, number=0)
    assert str(failed.value) == "expected a number above 0, seen 0"


class Host(Mapping[str, Any]):
    """The variables of a host as Ansible gives them: a template is worked out when its name is asked for."""

    def __init__(self, variables: dict[str, Any], worked_out: list[str]) -> None:
        self._variables, self._worked_out = variables, worked_out

    def __getitem__(self, name: str) -> Any:
        self._worked_out.append(name)
        return self._variables[name]

    def __contains__(self, name: object) -> bool:
        return name in self._variables

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)


class HostVars(dict[str, Any]):
    def __init__(self, hosts: dict[str, Any]) -> None:
        super().__init__(hosts)
        self.asked: list[str] = []

    def __getitem__(self, host: str) -> Any:
        self.asked.append(host)
        return super().__getitem__(host)


def test_each_host_is_asked_once_and_for_what_is_named_alone() -> None:
    worked_out: list[str] = []
    hosts = HostVars(
        {
            "one": Host({"a": 1, "b": 2, "huge": 0}, worked_out),
            "two": Host({"b": 3, "huge": 0}, worked_out),
            "three": Host({}, worked_out),
        }
    )
    found = compute.of_hosts({"hostvars": hosts}, ["one", "two"], ["a", "b"])
    assert found == {"one": {"a": 1, "b": 2}, "two": {"b": 3}}
    assert hosts.asked == ["one", "two"]
    assert worked_out == ["a", "b", "b"]
