"""Playbooks as a user runs them, and the hosts as they are, seen past ssh."""

from __future__ import annotations

import functools
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import running
import testing
from running import Run
from testing import docker

SCENARIO = Path(__file__).parents[1]
HOSTS = ["roll-1", "roll-2", "roll-3"]
NAME = "sparkfleet-vllm"

# -- hosts


def on(name: str, script: str, check: bool = True) -> str:
    """As root on a host."""
    return docker("exec", f"sparkfleet-lab-{name}", "bash", "-c", script, check=check)


@dataclass(frozen=True)
class Seen:
    """A host, as files/look.py saw it."""

    name: str
    container: dict[str, Any] | None
    state: str
    recorded_at: float
    events: list[dict[str, Any]]
    drafts: float | None

    @property
    def serves(self) -> tuple[str, str] | None:
        """The very process: container and start."""
        return (self.container["id"], self.container["started"]) if self.container else None

    @property
    def spec(self) -> dict[str, Any]:
        assert self.container is not None, f"{self.name} has no server"
        spec: dict[str, Any] = self.container["spec"]
        return spec

    @property
    def recorded(self) -> Any:
        return json.loads(self.state)["current"]["serving"]["container"]

    @property
    def runs_recorded(self) -> bool:
        """What runs is what is recorded as having passed."""
        if self.container is None or self.container["status"] != "running":
            return False
        seen = (self.spec["name"], self.spec["argv"][1:])
        return seen == (self.recorded["image"], self.recorded["command"])

    def passed(self) -> bool:
        """And drafts were measured in this very process."""
        return self.runs_recorded and (self.drafts or 0) >= 200

    def at(self, action: str, which: int = 0) -> float:
        """When the engine saw that happen to the server, since the time that was asked for."""
        times = [event["time"] for event in self.events if event["action"] == action]
        assert len(times) > which, f"{self.name}: {action} not among {self.events}"
        return float(times[which])


def look(names: Sequence[str] = tuple(HOSTS), since: float | None = None) -> dict[str, Seen]:
    script = (SCENARIO / "files/look.py").read_text()

    def one(name: str) -> Seen:
        asked = ["exec", "--interactive", f"sparkfleet-lab-{name}", "python3", "-", f"{since or time.time()}"]
        return Seen(name, **json.loads(docker(*asked, stdin=script)))

    with ThreadPoolExecutor() as pool:
        return {seen.name: seen for seen in pool.map(one, names)}


def digest(names: Sequence[str] = tuple(HOSTS)) -> dict[str, str]:
    script = (SCENARIO / "files/digest.py").read_text()

    def one(name: str) -> str:
        return docker("exec", "--interactive", f"sparkfleet-lab-{name}", "python3", "-", stdin=script)

    with ThreadPoolExecutor() as pool:
        return dict(zip(names, pool.map(one, names), strict=True))


# For what never comes, not for what is slow.
until = functools.partial(testing.until, within=300)

# -- runs


def inventory(path: Path, variables: Mapping[str, Mapping[str, Any]]) -> Path:
    """One more inventory, that gives hosts variables of their own."""
    path.write_text(json.dumps({"sparks": {"hosts": variables}}))
    return path


def another(seen: Mapping[str, Seen], by: int = 1) -> dict[str, int]:
    """An argument that no host serves with, none that is recorded either."""
    words = " ".join(
        host.state + " ".join(host.spec["argv"] if host.container else []) for host in seen.values()
    )
    numbers = [int(number) for number in re.findall(r"--max-num-seqs\W+(\d+)", words)]
    return {"max-num-seqs": max(numbers, default=1) + by}


def runs() -> Iterator[Callable[..., Run]]:
    yield from running.runs(SCENARIO / "inventory")
