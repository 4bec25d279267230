# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to the role vllm_serve: fails if the recipe knows something against the inventory's wishes.

Option C(inputs): the role's inputs by their short names, see plugins/plugin_utils/serving/inputs.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ansible.errors import AnsibleActionFail
from ansible.utils.display import Display

from ..module_utils._common.terminal import printable
from ..module_utils._vllm import options as vllm_options
from ..plugin_utils.compute import Compute
from ..plugin_utils.serving import record
from ..plugin_utils.serving.inputs import Inputs


class ActionModule(Compute):
    ARGUMENT_SPEC: ClassVar[dict[str, Any]] = {"inputs": {"type": "dict", "required": True}}
    REFUSALS = (record.SpecError,)

    def compute(self, options: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        inputs: Inputs = options["inputs"]
        for name, text in _unknown(inputs["extra_arguments"]).items():
            Display().warning(
                printable(f"vllm_serve_extra_arguments.{name}: {text}{vllm_options.IMAGE_DECIDES}")
            )
        if refused := record.serving_refusals(inputs):
            raise AnsibleActionFail("\n".join(refused))
        for text in record.weakened(inputs):
            Display().warning(printable(f"less than the least rights: {text}"))
        return {}


def _unknown(extra_arguments: Mapping[str, Any]) -> dict[str, str]:
    """Options of the inventory that are unknown here, each with its message."""
    arguments = {name: value for name, value in extra_arguments.items() if value is not None}
    config = arguments.get("speculative-config")
    unknown = dict(vllm_options.unknown_options(arguments))
    for name, text in vllm_options.unknown_speculation(config if isinstance(config, dict) else ()).items():
        unknown[f"speculative-config.{name}"] = text
    return unknown
