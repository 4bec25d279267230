# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares a record of an earlier release with the record that this release makes of the same inputs. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ADDED = ("directories", "mounts")
"""Parts that records of 0.1.0 do not have. A record without them is one of 0.1.0."""
_CONTAINER = ("restart_policy", "restart_retries", "log_driver", "log_options")
"""Options of the container that no input of 0.1.0 chose."""
_CACHES = ("/root/.cache/", "/root/.triton", "/root/.tilelang")


def as_recorded(wanted: Mapping[str, Any], state: Mapping[str, Any] | None) -> dict[str, Any]:
    """The recorded server, if an earlier release deployed it and it differs only by what this release does by itself; else `wanted`.

    So an upgrade of the collection restarts no server. The next change of recipe, lock or inputs brings everything.

    :param wanted: the serving record of this release
    :param state: what ``state.json`` holds
    """
    recorded = ((state or {}).get("current") or {}).get("serving") or {}
    if not recorded or any(part in recorded for part in ADDED):
        return dict(wanted)
    same = _chosen(recorded) in (_chosen(wanted), _chosen(_without(wanted, "--shutdown-timeout")))
    return dict(recorded if same else wanted)


def _is_cache(volume: str) -> bool:
    return volume.endswith(":rw") and volume.partition(":")[2].startswith(_CACHES)


def _without(serving: Mapping[str, Any], option: str) -> dict[str, Any]:
    """A record without an option that the shipped recipes have since, and without its value."""
    command = list(serving["container"]["command"])
    if option in command:
        at = command.index(option)
        del command[at : at + 2]
    return {**serving, "container": {**serving["container"], "command": command}}


def _chosen(serving: Mapping[str, Any]) -> dict[str, Any]:
    """What people chose of a record, by recipe, lock or inventory."""
    made = serving["container"]
    volumes = [volume for volume in made.get("volumes") or [] if not _is_cache(volume)]
    # An option that nobody asked for is empty now. Earlier it was absent.
    container = {n: v for n, v in made.items() if n not in _CONTAINER and v not in ({}, [], "", None)}
    container["volumes"] = volumes
    return {name: value for name, value in serving.items() if name not in ADDED} | {"container": container}
