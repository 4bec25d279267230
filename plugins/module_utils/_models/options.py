# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of the modules that work on snapshots, and the checks that an argument spec cannot express."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any

from . import manifest as model_manifest
from .ensure import Options
from .manifest import Manifest, ManifestError

MIB = 1024 * 1024
SNAPSHOTS: dict[str, Any] = {
    "type": "list",
    "elements": "dict",
    "options": {
        "repository": {"type": "str", "required": True},
        "commit": {"type": "str", "required": True},
        "revision": {"type": "str"},
        "files": {"type": "dict", "required": True},
    },
}
ARGUMENT_SPEC: dict[str, Any] = {
    "snapshots": SNAPSHOTS | {"required": True},
    "store": {"type": "path", "required": True},
    "max_workers": {"type": "int", "default": 8},
}
STORING: dict[str, Any] = {
    "verify": {"type": "str", "choices": ["stat", "full"], "default": "stat"},
    "disk_reserve": {"type": "int", "default": 2048},
    "lock_timeout": {"type": "int", "default": 3600},
}
"""Options of the modules that also bring a snapshot into the store."""
LEAST = {"max_workers": 1, "disk_reserve": 0, "lock_timeout": 0}
"""The smallest values of all of these."""


def parse(params: Mapping[str, Any], least: Mapping[str, int]) -> list[Manifest]:
    """Check the options above, and type the manifests.

    :param least: {option: smallest value}
    :raises ManifestError: with the problems of all options and all snapshots
    """
    problems = [
        f"{name}: expected {smallest} or more, seen {params[name]}; correct the option"
        for name, smallest in least.items()
        if params[name] < smallest
    ]
    manifests: list[Manifest] = []
    if not posixpath.isabs(params["store"]):
        problems.append(f"store: expected an absolute path, seen {params['store']}; correct the option")
    if not params["snapshots"]:
        problems.append("snapshots: expected one or more, seen none; take the models of a recipe's lock")
    for snapshot in params["snapshots"]:
        try:
            manifests.append(
                model_manifest.parse(snapshot["repository"], snapshot["commit"], snapshot["files"])
            )
        except ManifestError as error:
            problems += error.problems
    named = [(manifest.repository, manifest.commit) for manifest in manifests]
    for repository, commit in sorted({name for name in named if named.count(name) > 1}):
        problems.append(
            f"{repository} at {commit}: expected once, seen {named.count((repository, commit))} times"
        )
    if problems:
        raise ManifestError(problems)
    return manifests


def storing(params: Mapping[str, Any]) -> Options:
    """How to bring the snapshots."""
    return Options(
        params["store"],
        params["max_workers"],
        params["verify"] == "full",
        params["disk_reserve"] * MIB,
        params["lock_timeout"],
    )
