# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of C(gateway_admit): which servers have passed, and where a gateway meets them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..module_utils._serve.state import rank_of
from ..plugin_utils.at_gateway import AtGateway
from ..plugin_utils.gateway import fleet


class ActionModule(AtGateway):
    def options(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        given = dict(self._task.args)
        sparks = given.get("sparks") or variables["ansible_play_hosts"]
        servers = []
        for host in sparks:
            known = variables["hostvars"][host]
            if (
                "spark_served" in known
                and "spark_failure" not in known
                and not rank_of(known["spark_served"])
            ):
                servers.append(fleet.place(host, known["spark_served"], fleet.met_at(host, known)))
        return given | {"servers": servers}
