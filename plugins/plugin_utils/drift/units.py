# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The members of each unit side by side: who is stale, and who has passed as something else. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...module_utils._drift.finding import Finding

RUNNING = "running"
DO = "playbooks/site.yml starts all members together, and measures them"
VERSIONS = {"driver": "NVIDIA driver", "engine": "Docker engine"}


def findings(known: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Finding]]:
    """By host, in what it differs from the head of its unit.

    :param known: by host, what its look knows: ``member`` as `_drift/member.py` gives it, where it is one, and ``versions``
    """
    heads = {
        member["unit"]: (host, each)
        for host, each in known.items()
        if (member := each.get("member")) and member["rank"] == 0
    }
    found: dict[str, list[Finding]] = {}
    for host, each in known.items():
        member = each.get("member")
        if member and member["rank"] and member["unit"] in heads:
            head, its = heads[member["unit"]]
            found[host] = [*_stale(member, its["member"], head), *_differs(each, its, head)]
    return found


def _stale(member: Mapping[str, Any], head: Mapping[str, Any], name: str) -> Iterator[Finding]:
    """A supervisor that says nothing has a finding of its own."""
    if not member["phase"] or not head["phase"]:
        return
    mine, its = (f"{each['phase']} in generation {each['generation'] or 'none'}" for each in (member, head))
    if member["phase"] != RUNNING or member["generation"] != head["generation"]:
        yield Finding(
            "server", "unit-stale", f"running in the generation of {name}, which is {its}", mine, DO
        )


def _differs(each: Mapping[str, Any], its: Mapping[str, Any], name: str) -> Iterator[Finding]:
    mine, head = each["member"]["recorded"], its["member"]["recorded"]
    for what in head:
        if mine.get(what) != head[what]:
            expected, seen = (f"{what} {side.get(what) or 'none'}" for side in (head, mine))
            yield Finding("server", "unit-differs", f"{expected}, which passed on {name}", seen, DO)
    for what, word in VERSIONS.items():
        version, other = ((side.get("versions") or {}).get(what) for side in (each, its))
        if version and other and version != other:
            do = "bring all members of the unit to one version"
            yield Finding("server", "unit-differs", f"{word} {other}, as on {name}", f"{word} {version}", do)
