# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the serving roles: thin fronts of plugin_utils/serving."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible.utils.display import Display

from ..module_utils._common import paths
from ..module_utils._vllm import argv, options
from ..plugin_utils.serving import record, rollout


def _front(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (argv.ArgumentsError, record.SpecError) as error:
            raise AnsibleFilterError(str(error)) from error

    return call


def serving_refusals(inputs: dict[str, Any]) -> list[str]:
    """The refusals, after a warning of each option of the inventory that is unknown here."""
    arguments = {name: value for name, value in inputs["extra_arguments"].items() if value is not None}
    config = arguments.get("speculative-config")
    unknown = options.unknown_options(arguments)
    for name, text in options.unknown_speculation(config if isinstance(config, dict) else ()).items():
        unknown[f"speculative-config.{name}"] = text
    for name, text in unknown.items():
        Display().warning(f"vllm_serve_extra_arguments.{name}: {text}{options.IMAGE_DECIDES}")
    return record.serving_refusals(inputs)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "vllm_args": _front(argv.render),
            "vllm_models": _front(record.mounted_models),
            "vllm_serving": _front(record.serving_record),
            "serving_variant": _front(record.variant),
            "serving_refusals": _front(serving_refusals),
            "gate_evidence": _front(record.gate_evidence),
            "serving_change": _front(rollout.change),
            "serving_window": _front(rollout.window),
            "snapshot_path": _front(paths.snapshot_path),
        }
