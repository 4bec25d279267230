# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all actions that compute on the controller share: options in, values out. Most of them serve a role and have no page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ..module_utils._common.terminal import printable


class Compute(ActionBase):
    """Runs for each host, and connects to none.

    Its result is for C(register). A role may not return it as C(ansible_facts): a fact cache would give it to later runs.
    """

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    ARGUMENT_SPEC: ClassVar[dict[str, Any]] = {}
    REFUSALS: ClassVar[tuple[type[Exception], ...]] = ()
    """Errors whose text tells a person everything."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _validated, options = self.validate_argument_spec(argument_spec=self.ARGUMENT_SPEC)
        try:
            made = self.compute(options, task_vars or {})
        except self.REFUSALS as error:
            raise AnsibleActionFail(printable(str(error))) from error
        return result | {"changed": False} | made

    def compute(self, options: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        """What the task returns."""
        raise NotImplementedError


class ComputeOnce(Compute):
    """Runs once for all hosts of the play. The task says C(run_once), so that every host gets what it registers."""

    BYPASS_HOST_LOOP = True


def of_hosts(
    variables: Mapping[str, Any], hosts: Sequence[str], names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """``{host: {name: value}}`` of some variables, as far as each host has them.

    Ansible puts the variables of a host together anew each time that somebody asks for the host. So each host is asked once, and
    only the named variables are templated.
    """
    found = {}
    for host in hosts:
        known = variables["hostvars"][host]
        found[host] = {name: known[name] for name in names if name in known}
    return found
