# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the serving roles: thin fronts of module_utils."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible.utils.display import Display
from ansible_collections.sparkfleet.vllm.plugins.module_utils import (
    _arguments,
    _recipe_arguments,
    _rollout,
    _spec,
    _store,
)


def _front(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (_arguments.ArgumentsError, _spec.SpecError) as error:
            raise AnsibleFilterError(str(error)) from error

    return call


def serving_refusals(inputs: dict[str, Any]) -> list[str]:
    """The refusals, after a warning of each option of the inventory that is unknown here."""
    arguments = {name: value for name, value in inputs["extra_arguments"].items() if value is not None}
    config = arguments.get("speculative-config")
    unknown = _recipe_arguments.unknown_options(arguments)
    for name, text in _recipe_arguments.unknown_speculation(
        config if isinstance(config, dict) else ()
    ).items():
        unknown[f"speculative-config.{name}"] = text
    for name, text in unknown.items():
        Display().warning(f"vllm_serve_extra_arguments.{name}: {text}{_recipe_arguments.IMAGE_DECIDES}")
    return _spec.serving_refusals(inputs)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "vllm_args": _front(_arguments.render),
            "vllm_models": _front(_spec.mounted_models),
            "vllm_serving": _front(_spec.serving_record),
            "serving_variant": _front(_spec.variant),
            "serving_refusals": _front(serving_refusals),
            "gate_evidence": _front(_spec.gate_evidence),
            "serving_change": _front(_rollout.change),
            "serving_window": _front(_rollout.window),
            "rollout_changed": _front(_rollout.changed),
            "snapshot_path": _front(_store.snapshot_path),
        }
