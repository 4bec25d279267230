# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of a sweep over drafts: thin fronts of module_utils."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.sparkfleet.vllm.plugins.module_utils import _sweep, _tune, _tuned


def _front(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (_sweep.SweepError, _tune.TuneError) as error:
            raise AnsibleFilterError(str(error)) from error

    return call


def sweep_choice(hosts: Sequence[str], hostvars: Mapping[str, Any], recipe: str) -> dict[str, Any]:
    return _sweep.choice({host: hostvars[host].get("spark_sweep") or {} for host in hosts}, recipe)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "recipe_tuned": _tuned.tuned,
            "sweep_choice": _front(sweep_choice),
            "sweep_entry": _sweep.entry,
            "sweep_made": _front(_sweep.made),
            "sweep_next": _front(_tune.sweep_next),
            "sweep_proposal": _front(_tune.sweep_proposal),
            "sweep_said": _sweep.said,
            "sweep_turn": _front(_sweep.turn),
            "sweep_wanted": _front(_sweep.wanted),
        }
