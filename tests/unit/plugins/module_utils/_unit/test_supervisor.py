# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Units of real processes: the program as a host has it, run by Python alone, with a shell script for vLLM.

Nothing here waits for a time: each test waits for what should be there, as long as a loaded machine may take.
"""

from __future__ import annotations

import ast
import contextlib
import itertools
import json
import os
import secrets
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._common import sources
from ansible_collections.sparkfleet.vllm.plugins.module_utils._unit import status, supervisor
from helpers import netns
from helpers.netns import Host, needs_namespaces

PATIENCE = 30.0
SILENCE = 3
SERVES = 'echo $$ >>"$HERE/pids"; exec sleep 600'
"""Runs until it is killed."""
LEAVES_ORPHANS = """
setsid sh -c 'trap "" TERM; echo $$ >>"$HERE/orphans"; while :; do sleep 1; done' &
while [ ! -s "$HERE/orphans" ]; do sleep 0.02; done
echo $$ >>"$HERE/pids"; exec sleep 600
"""
DRAINS = """
trap 'touch "$HERE/asked"; while [ ! -e "$HERE/answered" ]; do sleep 0.02; done; exit 0' TERM
echo $$ >>"$HERE/pids"; while :; do sleep 0.02; done
"""
IGNORES = 'trap "" TERM; echo $$ >>"$HERE/pids"; while :; do sleep 0.05; done'
ENDS = 'echo $$ >>"$HERE/pids"; exit 0'


def until(seen: Callable[[], Any], what: str = "") -> Any:
    end = time.monotonic() + PATIENCE
    while not (found := seen()):
        assert time.monotonic() < end, f"not seen within {PATIENCE:.0f} s: {what}"
        time.sleep(0.02)
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Member:
    """A host with its folder, and the container that runs there or does not."""

    def __init__(self, unit: Unit, rank: int) -> None:
        self.unit, self.rank = unit, rank
        self.folder = unit.folder / str(rank)
        self.folder.mkdir()
        self.key = self.folder / "key"
        self.key.write_text(f"{unit.key}\n")
        self.serves = SERVES
        self.options: dict[str, object] = {}
        self.host: Host | None = None
        self.process: subprocess.Popen[bytes] | None = None

    def argv(self) -> list[str]:
        options = {
            "unit": "trio",
            "rank": self.rank,
            "nodes": self.unit.nodes,
            "head": self.unit.address,
            "port": self.unit.port,
            "key": self.key,
            "status": self.folder / "status.json",
            "silence": SILENCE,
            "pause": 0,
            **self.options,
        }
        words = [f"--{name}={value}" for name, value in options.items()]
        return [sys.executable, "-I", str(self.unit.program), *words, "--", "sh", "-c", self.serves]

    def start(self) -> None:
        argv = self.argv()
        if self.host:
            argv = ["nsenter", f"--target={self.host.holder.pid}", "--net", "--", *argv]
        with (self.folder / "log").open("ab") as log:
            environment = {"PATH": netns.PATH, "HERE": str(self.folder)}
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, env=environment)

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def status(self) -> dict[str, Any]:
        found, _why_not = status.read(self.folder)
        return status.judged(found, "", time.time())

    def pids(self, name: str = "pids") -> list[int]:
        path = self.folder / name
        return [int(word) for word in path.read_text().split()] if path.exists() else []

    def server(self) -> int:
        """The server that runs."""
        (pid,) = [pid for pid in self.pids() if alive(pid)]
        return pid

    def signal(self, number: int) -> None:
        assert self.process
        self.process.send_signal(number)

    def ends(self) -> int:
        assert self.process
        return self.process.wait(PATIENCE)

    def lost(self) -> None:
        """The container goes with all that is in it, without a word."""
        self.signal(signal.SIGKILL)
        self.ends()
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


class Unit:
    def __init__(self, folder: Path, program: Path, nodes: int) -> None:
        self.folder, self.program, self.nodes = folder, program, nodes
        self.key = secrets.token_hex(32)
        self.address = "127.0.0.1"
        with socket.socket() as free:
            free.bind((self.address, 0))
            self.port = free.getsockname()[1]
        self.members = [Member(self, rank) for rank in range(nodes)]

    def start(self, *ranks: int) -> None:
        for rank in ranks or range(self.nodes):
            self.members[rank].start()

    def generation(self, but: str = "") -> str:
        """That in which all run, once it is another one."""

        def seen() -> str:
            found = {(each["phase"], each["generation"]) for each in map(Member.status, self.members)}
            phase, generation = found.pop() if len(found) == 1 else ("", "")
            # A server has written its pid by then, or will in a moment.
            whole = phase == "running" and all(any(map(alive, each.pids())) for each in self.members)
            return generation if whole and generation != but else ""

        return str(
            until(seen, f"a generation after {but or 'none'}: {[each.status() for each in self.members]}")
        )

    def phases(self, *expected: str) -> None:
        until(lambda: [each.status()["phase"] for each in self.members] == list(expected), str(expected))

    def stop(self) -> None:
        for member in self.members:
            if member.process:
                member.signal(signal.SIGCONT)
                member.lost()
            for pid in member.pids("orphans"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("program") / "unit"
    sources.put(folder, sources.files("_unit.supervisor"))
    return folder


@pytest.fixture
def make(tmp_path: Path, program: Path) -> Iterator[Callable[[int], Unit]]:
    made: list[Unit] = []

    def unit(nodes: int) -> Unit:
        made.append(Unit(tmp_path, program, nodes))
        return made[-1]

    yield unit
    for each in made:
        each.stop()


@pytest.mark.parametrize("order", list(itertools.permutations(range(3)))[1::2], ids=str)
def test_all_start_together_whatever_the_order(make: Callable[[int], Unit], order: Sequence[int]):
    unit = make(3)
    for rank in order[:2]:
        unit.start(rank)
        until(lambda rank=rank: unit.members[rank].status()["phase"] == "waiting")  # type: ignore[misc]
    assert [each.pids() for each in unit.members] == [[], [], []]
    unit.start(order[2])
    generation = unit.generation()
    for member in unit.members:
        told = until(lambda member=member: _all_run(member.status()))  # type: ignore[misc]
        assert {each["generation"] for each in told["members"].values()} == {generation}
        assert (told["rank"], told["nodes"], told["restarts"], told["why"]) == (member.rank, 3, 0, "")


def _all_run(told: dict[str, Any]) -> dict[str, Any] | None:
    return told if [each["phase"] for each in told["members"].values()] == ["running"] * 3 else None


@pytest.mark.parametrize("rank", [0, 2])
def test_a_server_that_is_killed_while_nobody_asks_ends_all_and_all_serve_again(
    make: Callable[[int], Unit], rank: int
):
    unit = make(3)
    unit.start()
    first = unit.generation()
    before = [member.server() for member in unit.members]
    os.kill(before[rank], signal.SIGKILL)
    unit.generation(but=first)
    assert not any(map(alive, before))
    assert [len(each.pids()) for each in unit.members] == [2, 2, 2]
    own, other = "its server was killed by signal 9", f"rank {rank}: its server was killed by signal 9"
    told = unit.members[1].status()
    assert (told["restarts"], told["why"]) == (1, other if rank else own)


def test_a_lost_head_and_a_lost_worker_are_found_and_their_successors_are_taken(make: Callable[[int], Unit]):
    unit = make(3)
    unit.start()
    generation = unit.generation()
    for rank in (0, 1):
        before = [member.server() for member in unit.members]
        unit.members[rank].lost()
        others = [member for member in unit.members if member.rank != rank]
        until(lambda before=before: not any(map(alive, before)), "the end of all servers")  # type: ignore[misc]
        for member in others:
            until(lambda member=member: member.status()["phase"] == "waiting")  # type: ignore[misc]
        unit.start(rank)
        generation = unit.generation(but=generation)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_paused_member_is_found_by_all_and_comes_back_by_itself(make: Callable[[int], Unit], rank: int):
    """As `docker pause` does it: supervisor and server stand still, no connection is closed."""
    unit = make(3)
    unit.start()
    first = unit.generation()
    paused = unit.members[rank]
    server = paused.server()
    paused.signal(signal.SIGSTOP)
    os.kill(server, signal.SIGSTOP)
    others = [member for member in unit.members if member.rank != rank]
    for member in others:
        until(lambda member=member: member.status()["phase"] == "waiting")  # type: ignore[misc]
    reasons = {member.status()["why"] for member in others}
    name = f"rank {rank}" if rank else "the head"
    assert all(f"{name} was silent for " in why for why in reasons), reasons
    os.kill(server, signal.SIGCONT)
    paused.signal(signal.SIGCONT)
    unit.generation(but=first)
    assert not alive(server)


@needs_namespaces
@pytest.mark.parametrize(
    ("fault", "mended"),
    [
        ("ip link set c2 down", "ip link set c2 up"),
        ("iptables -I INPUT -i c2 -j DROP", "iptables -D INPUT -i c2 -j DROP"),
    ],
    ids=["cable", "packets"],
)
def test_a_link_that_is_down_for_longer_than_the_silence_needs_no_hand(
    make: Callable[[int], Unit], fault: str, mended: str
):
    """Real networks: one worker is cut off. No packet says so, on either end."""
    unit = make(3)
    with netns.hosts("head", "one", "two") as hosts:
        netns.join(hosts["head"], hosts["one"], "c1", "1")
        netns.join(hosts["head"], hosts["two"], "c2", "2")
        unit.address = "10.0.1.1"
        for member, host in zip(unit.members, hosts.values(), strict=True):
            member.host = host
        unit.start()
        first = unit.generation()
        hosts["head"].do(*fault.split())
        unit.phases("waiting", "waiting", "waiting")
        assert "rank 2 was silent for 3 s" in unit.members[1].status()["why"]
        # Still longer: an attempt to connect fails, too.
        until(lambda: "rank 2: 10.0.1.1 was " in unit.members[2].log())
        hosts["head"].do(*mended.split())
        unit.generation(but=first)
        assert unit.members[0].status()["restarts"] == 1
        unit.stop()


def test_too_many_failures_within_an_hour_take_the_unit_down_and_a_new_head_starts_it_again(
    make: Callable[[int], Unit],
):
    unit = make(2)
    head, worker = unit.members
    head.options = {"restarts": 2}
    worker.serves = ENDS
    unit.start()
    unit.phases("down", "down")
    assert [len(each.pids()) for each in unit.members] == [3, 3]
    assert head.status()["why"] == "rank 1: its server ended with status 0"
    assert "DOWN. Expected at most 2 failures an hour, seen 3, the last: rank 1: its server" in head.log()
    head.signal(signal.SIGTERM)
    assert head.ends() == 0
    until(lambda: worker.status()["phase"] == "waiting")
    unit.start(0)
    until(lambda: len(worker.pids()) == 6)


def test_a_server_that_cannot_start_is_a_failure_with_a_reason(make: Callable[[int], Unit]):
    unit = make(2)
    head, worker = unit.members
    head.options = {"restarts": 0}
    unit.start(0)
    argv = [*worker.argv()[:-3], "/nowhere/vllm"]
    worker.argv = lambda: argv  # type: ignore[method-assign]
    unit.start(1)
    unit.phases("down", "down")
    assert head.status()["why"] == "rank 1: cannot start /nowhere/vllm: No such file or directory"


def test_what_a_server_leaves_behind_is_killed_before_the_next_one_starts(make: Callable[[int], Unit]):
    unit = make(2)
    unit.members[1].serves = LEAVES_ORPHANS
    unit.start()
    first = unit.generation()
    (orphan,) = unit.members[1].pids("orphans")
    os.kill(unit.members[1].server(), signal.SIGKILL)
    until(lambda: not alive(orphan), "the end of what ignores TERM, in a session of its own")
    unit.generation(but=first)


def test_an_asked_for_stop_of_the_head_lets_answers_end_while_the_workers_go_on(make: Callable[[int], Unit]):
    unit = make(2)
    head, worker = unit.members
    head.serves = DRAINS
    unit.start()
    unit.generation()
    head.signal(signal.SIGTERM)
    until((head.folder / "asked").exists)
    until(lambda: worker.status()["members"]["0"]["phase"] == "ending")
    assert worker.status()["phase"] == "running" and alive(worker.server())
    (head.folder / "answered").touch()
    assert head.ends() == 0
    until(lambda: worker.status()["phase"] == "waiting")
    assert not any(map(alive, head.pids() + worker.pids()))
    worker.signal(signal.SIGINT)
    assert worker.ends() == 0


def test_a_stop_ends_in_time_whatever_the_server_does(make: Callable[[int], Unit]):
    unit = make(2)
    head, worker = unit.members
    worker.serves, worker.options = IGNORES, {"stop-within": 0.3}
    unit.start()
    unit.generation()
    worker.signal(signal.SIGTERM)
    assert worker.ends() == 0
    assert not any(map(alive, worker.pids()))
    until(lambda: head.status()["phase"] == "waiting")
    assert (head.status()["restarts"], head.status()["why"]) == (0, "rank 1: asked to stop")


def test_a_member_with_another_key_never_joins_and_both_logs_say_why(make: Callable[[int], Unit]):
    unit = make(2)
    head, worker = unit.members
    other = secrets.token_hex(32)
    worker.key.write_text(other)
    unit.start()
    until(lambda: "127.0.0.1 has another key, unit or size" in head.log())
    until(lambda: "127.0.0.1 closed the link" in worker.log())
    unit.phases("waiting", "waiting")
    for member in unit.members:
        said = member.log() + (member.folder / "status.json").read_text() + " ".join(member.argv())
        assert unit.key not in said and other not in said
        member.signal(signal.SIGTERM)
        assert member.ends() == 0


def test_the_status_is_private_and_whole_and_stale_once_its_writer_is_gone(make: Callable[[int], Unit]):
    unit = make(2)
    unit.start(0)
    head = unit.members[0]
    path = head.folder / "status.json"
    until(path.exists)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for _each in range(50):
        assert json.loads(path.read_text())["phase"] == "waiting"
    first = head.status()["age"], json.loads(path.read_text())["at"]
    until(lambda: json.loads(path.read_text())["at"] > first[1], "a heartbeat")


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"nodes": 1}, 64, "--nodes: 2 to 16"),
        ({"rank": 2}, 64, "--rank: 0 to nodes - 1"),
        ({"head": "spark-1"}, 64, "--head: an IPv4 address"),
        ({"unit": "a b"}, 64, "--unit: letters"),
        ({"silence": 0}, 64, "--silence"),
        ({"key": "/nowhere"}, 78, "expected a key in /nowhere, seen: No such file or directory"),
        ({"key": "/dev/null"}, 78, "seen: no 64 hexadecimal digits"),
    ],
    ids=str,
)
def test_what_it_cannot_work_with_ends_it_at_once(
    change: dict[str, object],
    code: int,
    said: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
):
    unit = Unit(tmp_path, tmp_path, 2)
    unit.members[0].options = change
    assert supervisor.main(["unit", *unit.members[0].argv()[3:]]) == code
    assert said in capfd.readouterr().err


def test_a_pause_of_its_own_is_no_silence_of_the_others(monkeypatch: pytest.MonkeyPatch):
    clock = [1000.0]
    monkeypatch.setattr(supervisor.time, "monotonic", lambda: clock[0])
    own = supervisor.OwnTime(2.0)
    passed = []
    for step in (0.5, 3600.0, 1.0):
        clock[0] += step
        passed.append(own.now())
    assert passed == [0.5, 2.5, 3.5]


def test_the_program_is_of_old_syntax_and_imports_the_standard_library_alone(program: Path):
    for path in program.rglob("*.py"):
        tree = ast.parse(path.read_text(), feature_version=(3, 8))
        for node in ast.walk(tree):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for name in names:
                assert name.partition(".")[0] in {*sys.stdlib_module_names, "sparkfleet"}, f"{path}: {name}"
