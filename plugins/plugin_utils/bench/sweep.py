# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A sweep over the speculation of one host: who is a candidate, whose turn it is, and what becomes of a turn. Pure.

A candidate is a speculative config, or None for off. A sweep holds ``{speculation, state, because, measurement}`` of each. The
arithmetic of which can still win is in plugin_utils/bench/statistics.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...module_utils._recipe.rules import argument_problems
from ...module_utils._vllm.options import unknown_speculation
from ..inputs import as_list
from . import statistics

VERSION = 1
PARTS = ("version", "recipe", "host", "hardware", "settings", "candidates", "proposal", "published")
"""The parts of a whole sweep."""
DEPTH = "num_speculative_tokens"


class SweepError(ValueError):
    """The wanted measurements do not add up; the text says which candidate and why."""


def wanted(
    serving: Mapping[str, Any],
    recipe: Mapping[str, Any],
    *,
    candidates: Sequence[Mapping[str, Any] | None] = (),
    depths: str | Sequence[int | str] = (),
    methods: Mapping[str, Mapping[str, Any]] | None = None,
    loads: str | Sequence[int | str] = (1,),
    decides: int | str = 1,
) -> list[dict[str, Any] | None]:
    """The candidates of a host, each once, in the order in which they are measured.

    The one that serves comes first: it needs no restart, and a host that cannot be measured in its state is left alone. A draft's
    shallower depths come before its deeper ones.

    :param serving: the record of what serves
    :param recipe: the loaded one, may be empty. Its speculative config counts if what serves has none, and its own one if measuring
        took that away
    :param candidates: as they are asked for. One without a method is the base with these keys changed, where the base is what
        serves, else the recipe's. None is off
    :param depths: tokens a step to try, 0 for off, with the base and with each of `methods`. In place of `candidates`
    :param methods: further ways to draft, name to further keys of the speculative config
    :param loads: the loads to measure, each a number of streams at a time
    :param decides: the one of them that decides
    :raises SweepError: a candidate that vLLM would not take, or whose model is not there; a missing base; a load that decides and
        is not measured
    """
    if int(decides) not in map(int, as_list(loads)):
        raise SweepError(
            f"expected one of the loads {', '.join(map(str, as_list(loads)))} to decide, seen {decides}; "
            "correct speculation_sweep_decides or speculation_sweep_concurrency"
        )
    served = serving["gate"]["speculation"]
    written = recipe.get("serve", {}).get("arguments", {}).get("speculative-config")
    base = served or written or recipe.get("tune", {}).get("own")
    tokens = sorted({int(depth) for depth in as_list(depths)}) if depths else []
    if tokens:
        drafts = [base] if base else []
        drafts += [{"method": name, **options} for name, options in (methods or {}).items()]
        asked: list[Mapping[str, Any] | None] = [None] if 0 in tokens else []
        asked += [{**draft, DEPTH: depth} for draft in drafts for depth in tokens if depth]
        if not drafts and any(tokens):
            raise SweepError(
                "expected a draft to sweep, seen a server and a recipe without speculation; do: name methods, such as ngram"
            )
    else:
        asked = list(candidates) if candidates else [None, *([base] if base else [])]
    for candidate in asked:
        if candidate is not None and not isinstance(candidate, Mapping):
            raise SweepError(f"expected candidates as mappings, or null for off, seen {candidate!r}")
    complete = [_complete(candidate, base) for candidate in asked]
    for candidate in complete:
        _check(candidate, serving, base or {})
    unique = [candidate for index, candidate in enumerate(complete) if candidate not in complete[:index]]
    return sorted(unique, key=lambda candidate: candidate != served)


def _complete(candidate: Mapping[str, Any] | None, base: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if candidate is None:
        return None
    if "method" in candidate:
        return dict(candidate)
    if not base:
        raise SweepError(f"candidate {dict(candidate)}: expected a method, since nothing serves that has one")
    return {**base, **candidate}


def _check(candidate: Mapping[str, Any] | None, serving: Mapping[str, Any], base: Mapping[str, Any]) -> None:
    if candidate is None:
        return
    # Here only a start would ask vLLM, and a start costs a stop. If what serves has a key, its vLLM knows the key.
    for name, unknown in unknown_speculation(candidate).items():
        if name not in base:
            raise SweepError(f"candidate {dict(candidate)}: {name}: {unknown}")
    problems = argument_problems({"speculative-config": dict(candidate)}, f"candidate {dict(candidate)}")
    if problems:
        raise SweepError("\n".join(map(str, problems)))
    mounts = [model["mount"] for model in serving["models"].values()]
    model = candidate.get("model")
    if model is not None and model not in mounts:
        raise SweepError(
            f"candidate {dict(candidate)}: expected one of the models that are mounted here ({', '.join(mounts)}), seen "
            f"{model!r}; do: serve a recipe that has this draft"
        )


def describe(
    wanted: Sequence[Mapping[str, Any] | None], serving: Mapping[str, Any], concurrency: Sequence[int]
) -> list[str]:
    """What will be measured, for a person, one line each."""
    served = serving["gate"]["speculation"]
    named = [
        statistics.called(candidate) + (", which serves now" if candidate == served else "")
        for candidate in wanted
    ]
    loads = " and ".join(str(streams) for streams in concurrency)
    return [f"{serving['recipe']}, each with {loads} streams at a time:", *named]


def turn(
    candidates: Sequence[Mapping[str, Any]],
    wanted: Sequence[Mapping[str, Any] | None],
    *,
    early: bool,
    concurrency: int,
    margin: float,
) -> dict[str, Any]:
    """The next candidate.

    :param candidates: those that had their turn
    :param early: leave out those that can no longer win
    :returns: ``{candidates: with those that are left out now, speculation: the next one, None for off, done: whether none is left}``
    :raises TuneError: the measurements cannot be compared
    """
    if early:
        told = statistics.sweep_next(candidates, wanted, concurrency, margin)
        left_out = [
            entry(each["speculation"], statistics.SKIPPED, each["because"]) for each in told["skipped"]
        ]
        return {"candidates": [*candidates, *left_out], "speculation": told["next"], "done": told["done"]}
    known = [candidate["speculation"] for candidate in candidates]
    left = [speculation for speculation in wanted if speculation not in known]
    return {
        "candidates": list(candidates),
        "speculation": left[0] if left else None,
        "done": not left,
    }


def entry(
    speculation: Mapping[str, Any] | None,
    state: str,
    because: str = "",
    measurement: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A sweep's entry for one candidate. If no load gives a rate, it keeps everything else that was measured."""
    if measurement and (untold := statistics.unmeasurable(measurement)):
        state, because = statistics.UNMEASURABLE, untold
    return {"speculation": speculation, "state": state, "because": because, "measurement": measurement}


def hardware(info: Mapping[str, Any]) -> dict[str, str]:
    """The hardware of the measurement, from the result of ``spark_info``. What that does not know is left out."""
    memory = (info.get("memory") or {}).get("total_bytes")
    found = {
        "gpu": (info.get("gb10") or {}).get("name"),
        "architecture": info.get("architecture"),
        "driver": info.get("driver"),
        "engine": (info.get("docker") or {}).get("version"),
        "toolkit": (info.get("toolkit") or {}).get("version"),
        "memory": f"{memory / 2**30:.0f} GiB" if memory else None,
    }
    return {name: str(value) for name, value in found.items() if value}


def made(
    candidates: Sequence[Mapping[str, Any]],
    serving: Mapping[str, Any],
    recipe: Mapping[str, Any],
    *,
    host: str,
    info: Mapping[str, Any],
    concurrency: int,
    margin: float,
    propose: bool,
) -> dict[str, Any]:
    """The whole sweep of one host, of which the report is made.

    :param info: what ``spark_info`` returned
    :param concurrency: of the load that decides
    :param propose: whether to choose; False: only compare
    """
    measured = [each["measurement"] for each in candidates if each["measurement"]]
    settings = {
        "concurrency": concurrency,
        "margin": margin,
        "plan": measured[0]["plan"] if measured else None,
        "order": "what serves first, since it needs no restart",
    }
    proposal = None
    if propose:
        try:
            proposal = statistics.sweep_proposal(candidates, concurrency, margin)
        except statistics.TuneError as error:
            settings["no_proposal"] = str(error)
    return {
        "version": VERSION,
        "recipe": serving["recipe"],
        "host": host,
        "hardware": hardware(info),
        "settings": settings,
        "candidates": list(candidates),
        "proposal": proposal,
        "published": recipe.get("published") if recipe.get("name") == serving["recipe"] else None,
    }


def handed_on(registered: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The sweep in a task's registered result, without what Ansible adds; None if there is no whole one."""
    return {name: registered[name] for name in PARTS} if registered and "candidates" in registered else None


def choice(sweeps: Mapping[str, Mapping[str, Any]], recipe: str) -> dict[str, Any]:
    """What the sweeps of a fleet propose for its recipe, as the lock holds it.

    :param sweeps: by host
    :param recipe: name of the recipe whose lock it is for
    :returns: ``{method, num_speculative_tokens, options, measured}``
    :raises SweepError: there is no proposal, hosts disagree, or one serves another recipe
    """
    proposals = {host: sweep["proposal"] for host, sweep in sweeps.items() if sweep.get("proposal")}
    if not proposals:
        raise SweepError("expected a proposal to write, seen none; do: see why each host has none")
    first, proposal = next(iter(proposals.items()))
    others = [host for host, other in proposals.items() if other["speculation"] != proposal["speculation"]]
    if others:
        told = ", ".join(
            f"{host} {statistics.called(each['speculation'])}" for host, each in proposals.items()
        )
        raise SweepError(
            f"expected hosts that propose the same, seen {told}; nothing was written. Do: measure again with more repeats, or "
            "write what one of them proposes, with --limit"
        )
    strangers = [host for host in proposals if sweeps[host]["recipe"] != recipe]
    if strangers:
        raise SweepError(
            f"expected hosts that serve {recipe}, whose lock this is, seen {sweeps[strangers[0]]['recipe']} on "
            f"{', '.join(strangers)}; nothing was written. Do: name the recipe with spark_recipe"
        )
    measurement = sweeps[first]["candidates"][proposal["index"]]["measurement"]
    speculation = dict(proposal["speculation"] or {})
    return {
        DEPTH: speculation.pop(DEPTH, 0),
        "method": speculation.pop("method", ""),
        "options": speculation,
        "measured": {
            "at": measurement["measured_at"],
            "hosts": list(proposals),
            "version": measurement["version"],
            "concurrency": proposal["concurrency"],
            "ratio": round(proposal["ratio"], 3),
            "low": round(proposal["interval"][0], 3),
            "high": round(proposal["interval"][1], 3),
            "because": proposal["because"],
        },
    }
