# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares the host, its engine and its files with what they should be, from the results of the looking modules. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...module_utils._drift.finding import WARNING, Finding, part
from ...module_utils._host import daemon_json

SITE = "playbooks/site.yml brings it back"
ENGINE_CHECKS = ("docker", "packages", "toolkit", "daemon.json")
KINDS = {
    "driver": "driver-too-old",
    "gpu": "gpu-unusable",
    "port": "port-taken",
    "directory": "directory-unsafe",
    "docker": "engine-unusable",
    "toolkit": "toolkit-unusable",
    "daemon.json": "daemon-json-broken",
    "packages": "package-missing",
}
"""Checks of spark_info with a better name for a finding; the others keep theirs."""
TOLD_OTHERWISE = ("restart",)
"""Checks about a change to come. Drift reports that change as a present difference."""
LACKING = ("memory", "disk")
"""Free room depends on what else the host does, not on what was set up."""


def host(info: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Subjects ``host`` and ``engine``.

    :param info: what ``spark_info`` returned, judged
    :param wanted: ``registry_mirrors``, ``fleet_registry``, ``daemon_config`` and ``toolkit``, with which it was judged
    """
    docker = info["docker"] or {}
    found = [_problem(problem) for problem in info["problems"] if problem["check"] not in TOLD_OTHERWISE]
    todo = info["todo"]
    found += [Finding("engine", "package-missing", name, "not installed", SITE) for name in todo["packages"]]
    found += [Finding("host", "directory-missing", path, "not there", SITE) for path in todo["directories"]]
    found += [_open(path, info["cache"]["mode"]) for path in todo["private"]]
    found += _environment(todo["requirements"], info)
    found += _daemon_json(info, wanted)
    if todo["start"]:
        found.append(Finding("engine", "engine-stopped", "the Docker engine runs", "it does not", SITE))
    known = {
        "driver": info["driver"],
        "toolkit": (info["toolkit"] or {}).get("version"),
        "engine": docker.get("version"),
        "kernel": info["kernel"],
        "os": (info["os"] or {}).get("name"),
    }
    return part(("host", "engine"), found, known={"versions": known})


def _open(path: str, mode: str | None) -> Finding:
    if mode is None:
        return Finding("host", "directory-missing", path, "not there", SITE)
    return Finding("host", "directory-open", f"{path} that only root may enter", f"mode {mode}", SITE)


def _problem(problem: Mapping[str, str]) -> Finding:
    check = problem["check"]
    return Finding(
        "engine" if check in ENGINE_CHECKS else "host",
        KINDS.get(check, check),
        problem["expected"],
        problem["seen"],
        problem["do"],
        WARNING if check in LACKING else "drift",
    )


def _environment(requirements: Iterable[str], info: Mapping[str, Any]) -> list[Finding]:
    environment = info["environment"] or {}
    installed = environment.get("distributions") or {}
    found = []
    for requirement in requirements:
        name = re.split(r"[\s<>=!~]", requirement.strip(), maxsplit=1)[0]
        seen = f"{name} {installed[name]}" if name in installed else "not installed"
        found.append(
            Finding(
                "engine",
                "environment",
                f"{requirement} in {environment.get('path', 'the environment')}",
                seen,
                SITE,
            )
        )
    return found


def _daemon_json(info: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[Finding]:
    """Keys of the file, and an engine that does not run as the file says."""
    file, plan = info["daemon_config"], info["todo"]["daemon"]
    if file is None or file["error"]:
        return []
    content = file["content"] or {}
    found = []
    if plan["keys"]:
        merged = daemon_json.redacted(
            daemon_json.wanted(
                content,
                wanted["registry_mirrors"],
                wanted["toolkit"],
                wanted["daemon_config"],
                wanted["fleet_registry"],
            )
        )
        for key in plan["keys"]:
            seen = f"{key}: {json.dumps(content[key])}" if key in content else f"{key} not set"
            found.append(
                Finding(
                    "engine",
                    "daemon-json",
                    f"{key}: {json.dumps(merged.get(key))}",
                    seen,
                    f"{SITE}, by merging",
                )
            )
    unread = daemon_json.unapplied_keys(content, info["docker"] or {})
    if unread:
        seen = f"the engine runs with another value of {', '.join(unread)}"
        do = "systemctl reload docker, or playbooks/site.yml"
        found.append(
            Finding("engine", "engine-not-reloaded", f"the engine has read {file['path']}", seen, do)
        )
    unseen = [
        ("the engine has seen the toolkit", reason, "systemctl restart docker")
        for reason in plan["because"]
        if reason == daemon_json.TOOLKIT_UNSEEN
    ]
    # A plain restart would take the server away: the other store does not have it.
    unseen += [
        (
            f"the engine runs with {key} of {file['path']}",
            daemon_json.STORE_UNSEEN,
            daemon_json.instead([daemon_json.STORE_UNSEEN]),
        )
        for key in daemon_json.store_differs(content, info["docker"] or {})
    ]
    found += [Finding("engine", "engine-not-restarted", *what) for what in unseen]
    return found


def models(looks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Subject ``models``, from the results of ``hf_snapshot_info``."""
    found = []
    for look in looks:
        where = f"{look['repository']}@{look['commit'][:12]}"
        for path in look["missing"]:
            found.append(_file("model-missing", f"{where}: {path}", "not there"))
        for text in look["damaged"]:
            path, _sep, why = text.partition(": ")
            expected, _sep, seen = why.removeprefix("expected ").partition(", seen ")
            found.append(_file("model-changed", f"{where}: {path}, {expected}", seen))
        for path in look["unknown"]:
            expected = f"{where}: {path} as it was when it was hashed"
            seen = "the size is right, and it was written or moved since; -e drift_verify=full tells of its bytes"
            found.append(_file("model-changed", expected, seen))
        for path in look["unexpected"]:
            expected = f"{where}: no file that the lock does not know"
            found.append(_file("model-extra", expected, path, "remove it: what serves may read it"))
    return part(("models",), found)


def _file(kind: str, expected: str, seen: str, do: str = SITE) -> Finding:
    return Finding("models", kind, expected, seen, do)


def patches(result: Mapping[str, Any], wanted: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Subject ``patches``, from the result of ``patch_pin`` in check mode.

    :param result: that result. Without ``diff`` it is a refusal; without ``patches`` the module came to no answer
    :param wanted: the locked patches
    """
    if not wanted:
        return part(("patches",))
    if "patches" not in result:
        return part(("patches",), [], {"patches": f"the look failed: {result.get('msg', 'no answer')}"})
    if "diff" not in result:
        do = "correct recipe and lock"
        refused = Finding(
            "patches", "patch-refused", "the image takes every patch", result.get("msg", "no answer"), do
        )
        return part(("patches",), [refused])
    placed = {patch["host_path"]: patch for patch in result["patches"]}
    found = [
        Finding(
            "patches",
            "patch-store",
            f"{path} with md5 {placed[path]['md5']}" if path in placed else f"{path} as locked",
            "missing, another content, or no longer read-only",
            SITE,
        )
        for path in result["diff"]["after"].splitlines()
    ]
    unknown = {} if len(placed) == len(wanted) else {"patches": result.get("msg", "the image was not asked")}
    return part(("patches",), found, unknown)
