# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters for what serves: thin fronts of the packages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils._common import paths
from ..module_utils._serve import former
from ..module_utils._vllm import argv
from ..plugin_utils.serving import record
from ..plugin_utils.serving.inputs import Inputs


def _front(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (argv.ArgumentsError, record.SpecError) as error:
            raise AnsibleFilterError(str(error)) from error

    return call


def serving(inputs: Inputs, state: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The record of these inputs; or the one in `state` of an earlier release, if it differs in nothing that the inputs choose."""
    return former.as_recorded(record.serving_record(inputs), state)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "vllm_args": _front(argv.render),
            "vllm_serving": _front(serving),
            "vllm_stop_timeout": _front(record.stop_timeout),
            "snapshot_path": _front(paths.snapshot_path),
        }
