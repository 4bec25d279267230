"""Playbooks as a user runs them, and the hosts as they are, seen past ssh."""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCENARIO = Path(__file__).parents[1]
PLAYBOOKS = SCENARIO.parents[1] / "playbooks"
HOSTS = ["roll-1", "roll-2", "roll-3"]
NAME = "sparkfleet-vllm"

# -- hosts


def docker(*arguments: str, stdin: str | None = None, check: bool = True) -> str:
    done = subprocess.run(["docker", *arguments], input=stdin, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stderr
    return done.stdout


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


def until(condition: Callable[[], Any], within: float = 300, every: float = 0.2) -> Any:
    """The first value that is true. The limit is for what never comes, not for what is slow."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(every)
    return value


def power_off(*names: str) -> None:
    """As the network sees it: silence. A kill alone would have the kernel close its connections."""
    for name in names:
        on(name, "ip link set eth0 down")
    docker("kill", *(f"sparkfleet-lab-{name}" for name in names))


def restart(*names: str) -> None:
    """As an admin does it: everything is asked to stop before."""
    docker("stop", "-t60", *(f"sparkfleet-lab-{name}" for name in names))
    power_on(*names)


def power_on(*names: str) -> None:
    """Started, and reachable."""
    docker("start", *(f"sparkfleet-lab-{name}" for name in names))
    for name in names:
        # Nobody is let in before it has booted.
        until(functools.partial(booted, name))
        until(functools.partial(on, name, "(: </dev/tcp/127.0.0.1/22) 2>/dev/null && echo yes", check=False))


def booted(name: str) -> bool:
    return on(name, "systemctl is-system-running --wait", check=False).strip() in ("running", "degraded")


# -- runs


class Run:
    """One run of a playbook."""

    def __init__(self, playbook: str, *options: str, inventories: Sequence[Path] = (), **extra: Any) -> None:
        command = [
            str(Path(sys.executable).with_name("ansible-playbook")),
            str(PLAYBOOKS / f"{playbook}.yml"),
        ]
        command += [f"--inventory={path}" for path in (SCENARIO / "inventory", *inventories)]
        # ssh gives up at once a host that is gone: what becomes of the run is under test, not ssh.
        command += [f"--extra-vars={json.dumps({'ansible_ssh_timeout': 5, **extra})}", *options]
        self.began = time.time()
        self._lines: list[str] = []
        self._more = threading.Condition()
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env=os.environ | {"ANSIBLE_FORCE_COLOR": "0", "COLUMNS": "300"},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._more:
                self._lines.append(line)
                self._more.notify_all()
        with self._more:
            self._more.notify_all()

    @property
    def output(self) -> str:
        return "".join(self._lines)

    def says(self, pattern: str, within: float = 600) -> None:
        """Waits for a line."""

        def said() -> bool:
            return any(re.search(pattern, line) for line in self._lines)

        with self._more:
            came = self._more.wait_for(lambda: said() or not self._reader.is_alive(), within)
            assert came and said(), f"never said {pattern!r}:\n{self.output}"

    def when(self, condition: Callable[[], Any], within: float = 600) -> None:
        def over() -> bool:
            assert self.process.poll() is None, f"over before it came to that:\n{self.output}"
            return bool(condition())

        until(over, within, every=0.05)

    def kill(self) -> None:
        """The whole process group, at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def end(self, within: float = 900) -> Run:
        self.process.wait(timeout=within)
        self.ended = time.time()
        self._reader.join(timeout=10)
        self.failed = self.process.returncode != 0
        return self

    def row(self, name: str) -> str:
        """The host's line of the last table."""
        rows = [line for line in self._lines if re.match(rf"{name}\s", line) and "ok=" not in line]
        assert rows, f"no line of {name} in a table:\n{self.output}"
        return rows[-1].rstrip()

    def window(self, name: str) -> float:
        """Seconds that the table says the host did not serve."""
        titles = next(line for line in reversed(self._lines) if re.match(r"host\s", line))
        start = titles.index("away")
        return float(self.row(name)[start:].split()[0])


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
    started: list[Run] = []

    def start(playbook: str, *options: str, **extra: Any) -> Run:
        started.append(Run(playbook, *options, **extra))
        return started[-1]

    yield start
    for run in started:
        if run.process.poll() is None:
            run.kill()
