"""A run that ends where nobody expects it: the next one finishes, and nothing half-done is recorded as good."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
from fleet import HOSTS, Run, Seen, another, look, power_off, power_on

NEVER = {"STUB_ACCEPTANCE": "0"}


@dataclass(frozen=True)
class Phase:
    """Where a run on one host ends. `comes` waits for it."""

    comes: Callable[[Run, Seen], Any]
    environment: dict[str, str] = field(default_factory=dict)
    loses_power: bool = True
    """The host goes with the controller; else the controller alone."""


def says(pattern: str) -> Callable[[Run, Seen], Any]:
    return lambda run, before: run.says(rf"TASK \[.*{pattern}")


def server(condition: Callable[[Seen, Seen], Any]) -> Callable[[Run, Seen], Any]:
    """Of what runs now and what ran before."""
    return lambda run, before: run.when(lambda: condition(look([before.name])[before.name], before))


def new(seen: Seen, before: Seen) -> bool:
    return seen.container is not None and seen.container["id"] != before.container["id"]  # type: ignore[index]


WORK: dict[str, Phase] = {
    "preparing": Phase(says("Pin the patches")),
    "just before the old server stops": Phase(says("Room in unified memory: make")),
    "no server": Phase(
        server(lambda seen, before: seen.container is None or seen.container["status"] != "running")
    ),
    "started, not ready": Phase(server(new), {"STUB_READY_AFTER": "30"}),
    "measuring": Phase(server(lambda seen, before: new(seen, before) and seen.drafts), {"STUB_STEP": "0.05"}),
}
END: dict[str, Phase] = {
    "recording": Phase(says("Record what passed")),
    "going back": Phase(says("Look again"), NEVER),
    "back, measuring": Phase(
        server(lambda seen, before: new(seen, before) and seen.spec == before.spec), NEVER
    ),
    "no server, and the host goes on": Phase(WORK["no server"].comes, loses_power=False),
    "measuring, and the host goes on": Phase(
        WORK["measuring"].comes, {"STUB_STEP": "0.05"}, loses_power=False
    ),
}


def proven(host: Seen) -> list[Any]:
    state = json.loads(host.state)
    return [state[which] and state[which]["serving"]["container"] for which in ("current", "last_good")]


@pytest.mark.parametrize("phases", [WORK, END], ids=["on the way there", "at its end and on the way back"])
def test_each_host_in_another_phase_and_one_run_finishes(serving, run, phases):
    arguments = another(serving)

    def interrupt(what: str, phase: Phase, name: str) -> None:
        environment = {"STUB_READY_AFTER": "0.3", **phase.environment}
        given = {"vllm_serve_extra_arguments": arguments, "vllm_serve_extra_environment": environment}
        going = run("site", f"--limit={name}", **given)
        phase.comes(going, serving[name])
        if phase.loses_power:
            power_off(name)
        going.kill()
        if phase.loses_power:
            power_on(name)
        left = look([name])[name]
        allowed = proven(serving[name])
        if what == "recording" and left.recorded["command"][-1] == str(arguments["max-num-seqs"]):
            allowed.append(left.recorded)  # it had passed, and the record was faster
        assert all(serves in allowed for serves in proven(left)), what

    # Runs on different hosts do not meet. Two, since more would only be slower.
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(interrupt, phases, phases.values(), HOSTS))

    # None waits for a lock of the dead.
    after_all = run("site", vllm_serve_extra_arguments=arguments).end()
    assert not after_all.failed, after_all.output
    finished = look()
    for (what, _), name in zip(phases.items(), HOSTS, strict=True):
        assert finished[name].passed(), what
        assert "pass" in after_all.row(name), what
    assert len({tuple(host.spec["argv"]) for host in finished.values()}) == 1
