# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares what serves on a host with what should: all that one look at container, server and record can tell. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .._common import json_text
from .._gate.container import State
from .._gate.diagnosis import CheckedFile
from .._host.unit import Unit
from .._serve.state import rank_of
from .._vllm.argv import options
from .._vllm.log import Speculation
from .._vllm.metrics import Counters, delta
from .._watchdog import install
from . import container as drift_container
from . import member, record, server, watchdog
from .finding import Finding, part

SUBJECTS = ("host", "models", "patches", "container", "server", "boot", "record")
NOT_RUNNING = "the container does not run"


@dataclass(frozen=True)
class Wanted:
    """What should serve, and what is known of it."""

    serving: Mapping[str, Any]
    """The serving record that recipe, lock and inputs add up to"""
    labels: Mapping[str, str] | None = None
    """Labels of the container that the record does not hold; None where they cannot be known"""
    secrets: Mapping[str, str] = field(default_factory=dict)
    """Environment that the record does not hold"""
    boot_unit: str = ""
    """Text of the unit; empty for none"""
    patches_known: bool = True
    """Whether it is known which files replace which"""
    patches_stored: bool = True
    """Whether the store holds the locked patches"""
    ready_timeout: float = 1200
    watchdog: install.State | None = None
    """None: it is not compared"""


@dataclass(frozen=True)
class Answers:
    """What the server said. `problem`: why it said nothing, or not all."""

    healthy: bool = False
    models: Sequence[str] | None = None
    counters: Counters | None = None
    cache: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True)
class Seen:
    """One look at a host. `container` and the images are as the engine describes them."""

    container: Mapping[str, Any] | None
    image: Mapping[str, Any] | None = None
    wanted_image: Mapping[str, Any] | None = None
    state: State | None = None
    now: float = 0.0
    """Unix time by the host's clock"""
    files: Sequence[CheckedFile] = ()
    changes: Sequence[Mapping[str, Any]] = ()
    stale: Sequence[str] = ()
    neighbours: Sequence[str] = ()
    answers: Answers = field(default_factory=Answers)
    log: Speculation = field(default_factory=Speculation)
    recorded: Mapping[str, Any] | None = None
    record_problem: str = ""
    held: Mapping[str, Any] | None = None
    """The run that is at work on the host; None without one"""
    unit: Unit = field(default_factory=Unit)
    member: Mapping[str, Any] | None = None
    """What its supervisor says, of a member of a unit"""
    watchdog: watchdog.Seen = field(default_factory=watchdog.Seen)


def judge(wanted: Wanted, seen: Seen, state_path: str) -> dict[str, Any]:
    """The part of a drift report that is about serving."""
    name = wanted.serving["container"]["name"]
    found: list[Finding] = [
        *server.neighbours(seen.neighbours),
        *drift_container.life(seen.container, name, seen.unit),
    ]
    unknown: dict[str, str] = {}
    container = seen.container
    if container is not None:
        found += _compare(wanted, container, seen, wanted.serving)
    if not wanted.patches_known:
        unknown["patches"] = "which file of the image each patch replaces could not be found out"
    if container is not None and seen.state is not None and seen.state.status == "running":
        found += _process(wanted, seen.state, seen)
        if seen.member is not None:
            found += member.findings(seen.member)
        # A worker has no API.
        if not rank_of(wanted.serving):
            said, reason = _server(wanted, container, seen.state, seen)
            found += said
            if reason:
                unknown["server"] = reason
    else:
        unknown["server"] = NOT_RUNNING
        unknown.setdefault("patches", f"{NOT_RUNNING}, so nobody sees them")
    runs = seen.state is not None and seen.state.status == "running"
    found += record.boot_unit(f"{name}.service", wanted.boot_unit, seen.unit, runs)
    if seen.record_problem:
        found.append(record.broken(state_path, seen.record_problem))
    elif wanted.patches_known:
        found += record.record(
            seen.recorded,
            _plain(wanted.serving),
            lambda serving: container is not None and not _compare(wanted, container, seen, serving),
        )
    subjects: tuple[str, ...] = SUBJECTS
    if wanted.watchdog is not None:
        subjects = (*SUBJECTS, watchdog.SUBJECT)
        found += watchdog.findings(wanted.watchdog, seen.watchdog)
    return part(subjects, found, unknown, _known(wanted, seen))


def _plain(value: Any) -> Any:
    """The value in the form that JSON gives it."""
    return json.loads(json.dumps(value))


def _compare(
    wanted: Wanted, container: Mapping[str, Any], seen: Seen, serving: Mapping[str, Any]
) -> list[Finding]:
    expected = dict(serving["container"])
    labelled = wanted.patches_known and wanted.labels is not None and serving is wanted.serving
    if labelled:
        expected["labels"] = wanted.labels
    findings = drift_container.compare(
        expected, container, seen.image, seen.wanted_image, wanted.secrets, wanted.patches_known
    )
    return findings if labelled else [finding for finding in findings if finding.kind != "label"]


def _process(wanted: Wanted, state: State, seen: Seen) -> list[Finding]:
    return [
        *server.files(seen.files, state, wanted.patches_stored),
        # What is mounted where the image has nothing is listed as added.
        *server.edited(seen.changes, [*(file.wanted.path for file in seen.files), *state.mounts]),
        *server.stale_mounts(seen.stale, [model["mount"] for model in wanted.serving["models"].values()]),
    ]


def _server(
    wanted: Wanted, container: Mapping[str, Any], state: State, seen: Seen
) -> tuple[list[Finding], str]:
    """Findings, and why there may be more; the reason is empty when everything was judged."""
    answers, argv = seen.answers, list(container["Config"].get("Cmd") or [])
    if not answers.healthy:
        age = seen.now - state.started
        if age < wanted.ready_timeout:
            return [], f"it is starting since {age:.0f} s, and has {wanted.ready_timeout:g} s"
        seconds = f"nothing, {age:.0f} s after its start"
        return [server.not_answering(seconds)], ""
    found: list[Finding] = []
    if answers.models is not None:
        found += server.answers(argv, answers.models)
    # Another server's figures say nothing of this one.
    if answers.counters is not None and not found:
        gate = wanted.serving["gate"]
        found += server.cache_config(argv, answers.cache)
        found += server.speculation(_given(argv), answers.counters, seen.log, argv)
        if gate["speculation"] is not None:
            found += server.acceptance(answers.counters, gate["acceptance_floor"], gate["minimum_drafts"])
    return found, answers.problem


def _given(argv: Sequence[str]) -> dict[str, Any] | None:
    """The speculative config of an argv; None without one."""
    values = options(argv).get("speculative-config")
    try:
        value = json_text.read(values[0], "the option") if values else None
    except json_text.JsonError:
        return None
    return value if isinstance(value, dict) else None


def _known(wanted: Wanted, seen: Seen) -> dict[str, Any]:
    """What only the whole fleet can judge, and what a reader of the report asks for."""
    known: dict[str, Any] = {
        "passed_on": ((seen.recorded or {}).get("current") or {}).get("gate", {}).get("host") or {}
    }
    if seen.member is not None:
        current = ((seen.recorded or {}).get("current") or {}).get("serving") or {}
        known["member"] = member.known(seen.member, wanted.serving["unit"], current)
    if seen.held is not None:
        known["held"] = dict(seen.held)
    if seen.state is not None:
        known["container"] = {
            "id": seen.state.id,
            "image": seen.state.image,
            "status": seen.state.status,
            "started_at": seen.state.started_at,
            "restarts": seen.state.restarts or seen.unit.restarts,
        }
    if seen.answers.counters is not None and seen.answers.counters.drafts is not None:
        since = delta(Counters(), seen.answers.counters)
        known["speculation"] = {
            "drafts": since.drafts,
            "acceptance_rate": round(since.acceptance_rate, 4) if since.drafts else None,
        }
    return known
