"""A run that ends where nobody expects it: the next one finishes, and nothing half-done is recorded as good."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
from fleet import HOSTS, Run, Seen, another, look
from running import power_off, power_on

NEVER = {"STUB_ACCEPTANCE": "0"}


@dataclass(frozen=True)
class Phase:
    """Where a run on one host ends. `comes` waits for it."""

    what: str
    comes: Callable[[Run, Seen], Any]
    environment: dict[str, str] = field(default_factory=dict)
    host_goes: bool = True
    controller_goes: bool = True


def says(pattern: str) -> Callable[[Run, Seen], Any]:
    return lambda run, before: run.says(rf"TASK \[.*{pattern}")


def server(condition: Callable[[Seen, Seen], Any]) -> Callable[[Run, Seen], Any]:
    """Of what runs now and what ran before."""
    return lambda run, before: run.when(lambda: condition(look([before.name])[before.name], before))


def new(seen: Seen, before: Seen) -> bool:
    return seen.container is not None and seen.container["id"] != before.container["id"]  # type: ignore[index]


# tests/unit/playbooks/test_rollout.py has the phases in which no disk and no engine has anything to lose.
PHASES: dict[str, list[Phase]] = {
    "roll-1": [
        Phase(
            "no server, and the controller goes on without the host",
            server(lambda seen, before: seen.container is None or seen.container["status"] != "running"),
            controller_goes=False,
        ),
        Phase(
            "measuring, and the host goes on",
            server(lambda seen, before: new(seen, before) and seen.drafts),
            {"STUB_STEP": "0.05"},
            host_goes=False,
        ),
    ],
    "roll-2": [
        Phase(
            "measuring",
            server(lambda seen, before: new(seen, before) and seen.drafts),
            {"STUB_STEP": "0.05"},
        ),
        Phase("going back", says("Look at the host again"), NEVER),
    ],
    "roll-3": [Phase("recording", says("Record the server that passed"))],
}


def proven(host: Seen) -> list[Any]:
    state = json.loads(host.state)
    return [state[which] and state[which]["serving"]["container"] for which in ("current", "last_good")]


@pytest.mark.long
def test_each_host_in_other_phases_and_one_run_finishes(serving, run):
    arguments = another(serving)

    def interrupt(name: str, phase: Phase) -> None:
        before = look([name])[name]
        environment = {"STUB_READY_AFTER": "0.3", **phase.environment}
        given = {"vllm_serve_extra_arguments": arguments, "vllm_serve_extra_environment": environment}
        going = run("site", f"--limit={name}", **given)
        phase.comes(going, before)
        if phase.host_goes:
            power_off(name)
        if phase.controller_goes:
            going.kill()
        else:
            assert going.end().failed and "unreachable=1" in going.output, phase.what
        if phase.host_goes:
            power_on(name)
        left = look([name])[name]
        allowed = proven(before)
        if phase.what == "recording" and left.recorded["command"][-1] == str(arguments["max-num-seqs"]):
            allowed.append(left.recorded)  # it had passed, and the record was faster
        assert all(serves in allowed for serves in proven(left)), phase.what

    def interrupt_each(name: str) -> None:
        for phase in PHASES[name]:
            interrupt(name, phase)

    # Runs on different hosts do not meet. Two, since more would only be slower.
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(interrupt_each, PHASES))

    # None waits for a lock of the dead.
    after_all = run("site", vllm_serve_extra_arguments=arguments).end()
    assert not after_all.failed, after_all.output
    finished = look()
    for name in HOSTS:
        assert finished[name].passed(), name
        assert "pass" in after_all.row(name), name
    assert len({tuple(host.spec["argv"]) for host in finished.values()}) == 1
