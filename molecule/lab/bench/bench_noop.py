#!/usr/bin/env python3
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""make bench-noop: what site.yml costs on hosts where nothing is to be done, beside a plain playbook that looks at the
same things with a task for each (noop_plain.yml), in turns, on 1, 2, 4 and 8 hosts that serve the stub.

Settings are in the environment: HOSTS ("1 2 4 8"), RUNS (3), KEEP (1: leave the hosts). The hosts noop-1 to noop-8 are
made, and removed afterwards.
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

from bench_lab import HERE, ROOT, SUBNET, BenchError

INVENTORY = HERE / "noop"
OURS, PLAIN = ROOT / "playbooks/site.yml", HERE / "noop_plain.yml"
GOAL_HOSTS, GOAL_RATIO, GOAL_EXECUTIONS = 8, 5.0, 12


@dataclass(frozen=True)
class Run:
    seconds: float
    controller: float
    """Seconds of CPU that the controller took, with all its processes."""
    executions: Mapping[str, int]
    """Calls of ssh and sftp, by address. A connection that is kept open is a call each time all the same."""


def names(count: int) -> list[str]:
    return [f"noop-{number}" for number in range(1, count + 1)]


@functools.cache
def counting() -> Path:
    """Where ssh and sftp are that count. They outlive a run, which gives its locks back through them after its end."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in ("ssh", "sftp"):
        (folder / name).symlink_to(HERE / "noop_count")
    return folder


def play(path: Path, count: int, *, noop: bool = True) -> Run:
    """One run over the first `count` hosts.

    :param noop: nothing may change
    :raises BenchError: it failed, or changed something
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
        ["ansible-playbook", "-i", str(INVENTORY), "--limit", ",".join(names(count)), str(path)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    executions = Counter(line.strip("[]") for line in calls.read_text().split())
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
    """Executions on the host that has most of them, in the worst of the runs."""
    return max(max(run.executions.values()) for run in runs)


def marginal(by_count: Mapping[int, float]) -> float:
    """Seconds that one more host costs: the slope between the smallest and the largest fleet."""
    low, high = min(by_count), max(by_count)
    return (by_count[high] - by_count[low]) / (high - low) if high > low else float("nan")


def verdict(good: bool) -> str:
    return "met" if good else "NOT met"


def compare(counts: Sequence[int], runs: int) -> None:
    results: dict[tuple[Path, int], list[Run]] = {
        (path, count): [] for path in (OURS, PLAIN) for count in counts
    }
    for _ in range(runs):
        for (path, count), found in sorted(results.items(), key=lambda item: item[0][1]):
            found.append(play(path, count))
    print(
        "hosts  site.yml s (min-max)    plain s (min-max)       ratio (median of pairs)  executions a host  controller CPU s",
        flush=True,
    )
    for count in counts:
        ours, plain = results[OURS, count], results[PLAIN, count]
        ratios = [other.seconds / one.seconds for one, other in zip(ours, plain, strict=True)]

        def text(found: Sequence[Run]) -> str:
            times = [run.seconds for run in found]
            return f"{median(found):.1f} ({min(times):.1f}-{max(times):.1f})"

        cpu = [statistics.median(run.controller for run in found) for found in (ours, plain)]
        print(
            f"{count:<6} {text(ours):<23} {text(plain):<23} {statistics.median(ratios):<24.1f} "
            f"{f'{most(ours)} / {most(plain)}':<18} {cpu[0]:.1f} / {cpu[1]:.1f}",
            flush=True,
        )
        if count == GOAL_HOSTS:
            ratio, executions = statistics.median(ratios), most(ours)
    slopes = [marginal({count: median(results[path, count]) for count in counts}) for path in (OURS, PLAIN)]
    print(f"one more host: site.yml {slopes[0]:.1f} s, plain {slopes[1]:.1f} s")
    if GOAL_HOSTS in counts:
        print(
            f"at most {GOAL_EXECUTIONS} executions a host: {verdict(executions <= GOAL_EXECUTIONS)} ({executions})"
        )
        print(
            f"{GOAL_RATIO:g} times as fast at {GOAL_HOSTS} hosts: {verdict(ratio >= GOAL_RATIO)} ({ratio:.1f})"
        )


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
    try:
        lab("create.yml")
        try:
            print(
                f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC, {os.cpu_count()} cores for controller and hosts"
            )
            # The first makes it so, the second looks at it once more, and the third is what is measured.
            for path in (OURS, OURS, PLAIN):
                play(path, max(counts), noop=False)
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
