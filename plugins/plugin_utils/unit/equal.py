# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the members of a unit are equal but for their rank. Pure.

vLLM compares nothing between its nodes. With another body on one of them it answers wrongly, with another draft it accepts little, with
other arguments it may hang at the first request: all of them start, and are healthy.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ...module_utils._vllm.argv import options
from ...module_utils._vllm.ask_image import starting
from .derive import BY_RANK, BY_RANK_ARGUMENTS
from .members import UnitError

NAMES = ("spark_candidate", "spark_host", "spark_failure")
"""The variables of a member that are read here."""
DO = "give all of them the same recipe, lock, inventory variables and driver"
_ELSEWHERE = frozenset({"image", "command", "env", "entrypoint", "volumes", "labels"})
"""Options of the container with a comparison of their own. The label says again what others say."""


def check(name: str, members: Mapping[str, Mapping[str, Any]]) -> None:
    """
    :param members: in order of rank, each with the variables of `NAMES` that it has
    :raises UnitError: one of them failed, or they differ
    """
    failed = [
        f"{host} {_reason(known)}"
        for host, known in members.items()
        if "spark_candidate" not in known or known.get("spark_failure")
    ]
    if failed:
        raise UnitError(
            f"expected all members of the unit {name} to be prepared, since it changes as one, seen {'; '.join(failed)}; mend that and "
            "run again. Nothing was touched"
        )
    seen = differences(
        {
            host: (known["spark_candidate"]["serving"], known.get("spark_host") or {})
            for host, known in members.items()
        }
    )
    if seen:
        raise UnitError(
            f"expected the members of the unit {name} to be equal but for their rank, seen {'; '.join(seen)}; {DO}. Nothing was touched"
        )


def _reason(known: Mapping[str, Any]) -> str:
    failure = known.get("spark_failure")
    if not failure:
        return "failed before, or is not in this run"
    said = ": ".join(str(failure[part]) for part in ("task", "msg") if failure.get(part))
    return f"failed ({said:.300})" if said else "failed"


def differences(members: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]]) -> list[str]:
    """What differs, one text for each thing, ``<thing>: <host> <value>, <host> <value>``.

    :param members: the record of each, and the versions of its host as C(spark_host) has them
    """
    things = {host: dict(_things(*both)) for host, both in members.items()}
    told = []
    for name in dict.fromkeys(name for each in things.values() for name in each):
        values = {host: each.get(name, "none") for host, each in things.items()}
        if len({*values.values()}) > 1:
            told.append(f"{name}: {', '.join(f'{host} {value:.200}' for host, value in values.items())}")
    return told


def _things(serving: Mapping[str, Any], host: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """All that must be equal, as name and text."""
    container = serving["container"]
    yield "recipe", serving["recipe"]
    yield "image", container["image"]
    # The store may lie elsewhere: a snapshot is <repository>/<commit> in it.
    for role, model in serving["models"].items():
        yield f"model {role}", "/".join(model["path"].split("/")[-2:])
    for file in serving["files"]:
        yield f"patch {file['path']}", file["sha256"]
    for name, values in options(container["command"]).items():
        if name not in BY_RANK_ARGUMENTS:
            yield f"argument --{name}" if name else "the model", " ".join(values) or "true"
    for name, text in container["env"].items():
        if name not in BY_RANK:
            yield f"environment {name}", text
    yield "entrypoint", " ".join(starting(container.get("entrypoint") or []))
    yield "mounts", " ".join(sorted(volume.partition(":")[2] for volume in container["volumes"]))
    for name, value in container.items():
        if name not in _ELSEWHERE:
            yield name, json.dumps(value, sort_keys=True)
    # What passed on a host before its unit was made is of none.
    for name, value in serving.get("unit", {}).items():
        if name != "rank":
            yield f"unit {name}", json.dumps(value, sort_keys=True)
    yield "driver", str(host.get("driver"))
    # A patch release of the engine makes no other container.
    yield "engine", f"Docker {str(host.get('engine')).partition('.')[0]}"
