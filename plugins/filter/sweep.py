# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of a sweep over drafts: thin fronts of plugin_utils/bench."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils._recipe import measured
from ..plugin_utils.bench import statistics, sweep


def _front(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (sweep.SweepError, statistics.TuneError) as error:
            raise AnsibleFilterError(str(error)) from error

    return call


def sweep_choice(hosts: Sequence[str], hostvars: Mapping[str, Any], recipe: str) -> dict[str, Any]:
    return sweep.choice({host: hostvars[host].get("spark_sweep") or {} for host in hosts}, recipe)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "recipe_tuned": measured.tuned,
            "sweep_choice": _front(sweep_choice),
            "sweep_entry": sweep.entry,
            "sweep_made": _front(sweep.made),
            "sweep_next": _front(statistics.sweep_next),
            "sweep_proposal": _front(statistics.sweep_proposal),
            "sweep_said": sweep.said,
            "sweep_turn": _front(sweep.turn),
            "sweep_wanted": _front(sweep.wanted),
        }
