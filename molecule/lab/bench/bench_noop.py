#!/usr/bin/env python3
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""make bench-noop: the cost of site.yml on hosts with nothing to do, measured in turns: as it is, with a look at everything
(spark_look_again), and beside a plain playbook that looks at the same things with one task each (noop_plain.yml).

Settings are in the environment: HOSTS ("1 2 4 8"), RUNS (3), KEEP (1: leave the hosts). The script makes the hosts noop-1 to
noop-8, which serve the stub, and removes them afterwards. Further hosts, up to 100, are other names of noop-2 to noop-8, each with
its own state directory: to the controller they are hosts like any other. The plain playbook runs on 8 at most.
"""

from __future__ import annotations

import atexit
import functools
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import yaml
from bench_lab import HERE, ROOT, SUBNET, BenchError

INVENTORY = HERE / "noop"
OURS, PLAIN = ROOT / "playbooks/site.yml", HERE / "noop_plain.yml"
GOAL_HOSTS, GOAL_RATIO, GOAL_EXECUTIONS = 8, 5.0, 12
MADE, MOST = 8, 100
STATE = "/var/lib/sparkfleet"


@dataclass(frozen=True)
class Run:
    seconds: float
    controller: float
    """Seconds of CPU that the controller took, with all its processes."""
    executions: Mapping[str, int]
    """{name: calls of ssh and sftp to the address of that host}. A command over a connection that is kept open counts as a call,
    too."""


def names(count: int) -> list[str]:
    return [f"noop-{number}" for number in range(1, count + 1)]


def made(number: int) -> int:
    """The host behind a name. noop-1 has the registry, and so no second name."""
    return number if number <= MADE else 2 + (number - MADE - 1) % (MADE - 1)


def address(number: int) -> str:
    return f"{SUBNET}.{150 + made(number)}"


@functools.cache
def counting() -> Path:
    """The directory of an ssh and an sftp that count. They outlive a run, which still uses them to release its locks."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    further = {
        name: {
            "ansible_host": address(number),
            "spark_state_dir": f"{STATE}-{name}",
        }
        for number, name in enumerate(names(MOST), 1)
        if number > MADE
    }
    (folder / "further.yml").write_text(yaml.safe_dump({"sparks": {"hosts": further}}))
    for name in ("ssh", "sftp"):
        (folder / name).symlink_to(HERE / "noop_count")
    return folder


def give_further_names(count: int) -> None:
    """Copy what a run knows of a host to the host's other names."""
    for number, name in enumerate(names(count), 1):
        if number > MADE:
            there = f"rm -rf {STATE}-{name} && cp -a {STATE} {STATE}-{name}"
            subprocess.run(
                ["docker", "exec", f"sparkfleet-lab-noop-{made(number)}", "sh", "-c", there], check=True
            )


def play(path: Path, count: int, *options: str, noop: bool = True) -> Run:
    """One run over the first `count` hosts.

    :param noop: nothing may change
    :raises BenchError: the run failed, or changed something
    """
    folder = counting()
    calls = folder / "calls"
    calls.write_text("")
    environment = os.environ | {
        "ANSIBLE_NOCOLOR": "true",
        "ANSIBLE_SSH_EXECUTABLE": f"{folder}/ssh",
        "ANSIBLE_SFTP_EXECUTABLE": f"{folder}/sftp",
        "BENCH_COUNT": str(calls),
        "BENCH_SUBNET": SUBNET,
    }
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        [
            "ansible-playbook",
            *("-i", str(INVENTORY), "-i", str(folder / "further.yml")),
            *("--limit", ",".join(names(count)), *options, str(path)),
        ],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    called = Counter(line.strip("[]") for line in calls.read_text().split())
    named = Counter(address(number) for number in range(1, count + 1))
    executions = {host: -(-calls // named[host]) for host, calls in called.items()}
    changed = re.findall(r"changed=([1-9]\d*)", done.stdout) if noop else []
    if done.returncode or changed:
        raise BenchError(
            f"{path.name}: expected {'nothing to change' if changed else 'success'}, seen {done.stdout[-3000:]}{done.stderr[-500:]}"
        )
    used = (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)
    return Run(seconds, used, executions)


def median(runs: Sequence[Run]) -> float:
    return statistics.median(run.seconds for run in runs)


def most(runs: Sequence[Run]) -> int:
    """Executions on the host that has most of them, in the worst run."""
    return max(max(run.executions.values()) for run in runs)


def marginal(by_count: Mapping[int, float]) -> float:
    """Seconds that one more host costs: the slope between the smallest and the largest fleet."""
    low, high = min(by_count), max(by_count)
    return (by_count[high] - by_count[low]) / (high - low) if high > low else float("nan")


def verdict(good: bool) -> str:
    return "met" if good else "NOT met"


def compare(counts: Sequence[int], runs: int) -> None:
    ways: dict[str, tuple[Path, Sequence[str], int]] = {
        "as it is": (OURS, (), MOST),
        "look": (OURS, ("-e", "spark_look_again=true"), MOST),
        "plain": (PLAIN, (), MADE),
    }
    results: dict[tuple[str, int], list[Run]] = {
        (way, count): []
        for count in counts
        for way, (_, _, most_hosts) in ways.items()
        if count <= most_hosts
    }
    for _ in range(runs):
        for (way, count), found in results.items():
            path, options, _ = ways[way]
            found.append(play(path, count, *options))
    print(
        "hosts  site.yml  s (min-max)             of it  executions a host  CPU of the controller s",
        flush=True,
    )
    for (way, count), found in results.items():
        times = [run.seconds for run in found]
        share = statistics.median(
            one.seconds / other.seconds for one, other in zip(found, results["as it is", count], strict=True)
        )
        print(
            f"{count:<6} {way:<9} {f'{median(found):.1f} ({min(times):.1f}-{max(times):.1f})':<23} {share:<6.1f} "
            f"{most(found):<18} {statistics.median(run.controller for run in found):.1f}",
            flush=True,
        )
        if (way, count) == ("plain", GOAL_HOSTS):
            goals(share, most(results["as it is", count]))
    for way in ways:
        of = {count: median(found) for (name, count), found in results.items() if name == way}
        if len(of) > 1:
            print(f"one more host, {way}: {marginal(of):.1f} s")


def goals(ratio: float, executions: int) -> None:
    print(
        f"at most {GOAL_EXECUTIONS} executions a host: {verdict(executions <= GOAL_EXECUTIONS)} ({executions})"
    )
    print(f"{GOAL_RATIO:g} times as fast at {GOAL_HOSTS} hosts: {verdict(ratio >= GOAL_RATIO)} ({ratio:.1f})")


def lab(playbook: str) -> None:
    done = subprocess.run(
        ["ansible-playbook", "-i", str(INVENTORY), str(HERE.parent / playbook)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise BenchError(f"{playbook}: expected it to succeed, seen {done.stdout[-3000:]}")


def main() -> int:
    counts = sorted({int(count) for count in os.environ.get("HOSTS", "1 2 4 8").split()})
    if not counts or counts[0] < 1 or counts[-1] > MOST:
        print(f"FAILED: HOSTS: expected numbers from 1 to {MOST}, seen {counts}", file=sys.stderr)
        return 1
    try:
        lab("create.yml")
        try:
            print(
                f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC, {os.cpu_count()} cores for controller and hosts"
            )
            # The first run sets the host up, the second looks at it once more, and the third is measured.
            for path in (OURS, OURS, PLAIN):
                play(path, min(MADE, max(counts)), noop=False)
            if max(counts) > MADE:
                give_further_names(max(counts))
                for _ in range(2):
                    play(OURS, max(counts), noop=False)
            compare(counts, int(os.environ.get("RUNS", "3")))
        finally:
            if not os.environ.get("KEEP"):
                lab("destroy.yml")
    except BenchError as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
