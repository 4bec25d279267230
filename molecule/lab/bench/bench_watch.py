#!/usr/bin/env python3
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""make bench-watch: what watchdog and exporters take of a Spark, and what they add to decoding, with real vLLM on a lab Spark.

Two measurements. What each part takes when it is done again and again while nobody asks: processor time of the whole Spark, with its
engine and its systemd, less what the Spark takes without. And the rate of one stream, in turns without any of it and with all of it
SPEED times as often as it is by default; a difference so large can be seen, and is divided by SPEED.

Settings are in the environment: SPEED (20), ROUNDS (8), TOKENS (400: of each answer), TIMES (20), KEEP (1: leave the hosts). The script
makes the hosts seen-1 and seen-gate, and removes them afterwards. It fails where the goal is missed.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import yaml
from bench_lab import HERE, ROOT, BenchError, deployed
from testing import on

INVENTORY = HERE / "watch"
SPARK, GATE, AT = "seen-1", "seen-gate", "172.31.250.124"
GOAL = 0.005
"""Share of decoding."""
HOUR = 3600.0
USED = "cat /sys/fs/cgroup/cpuacct/cpuacct.usage 2>/dev/null || awk '/^usage_usec/ {print $2 * 1000}' /sys/fs/cgroup/cpu.stat"
"""Nanoseconds of all processes of a lab host."""

UNLIMITED = """
for unit in sparkfleet-watchdog sparkfleet-series; do
    systemctl stop $unit.timer
    mkdir -p /run/systemd/system/$unit.service.d
    printf '[Unit]\\nStartLimitIntervalSec=0\\n' >/run/systemd/system/$unit.service.d/bench.conf
done
systemctl daemon-reload
"""
"""The two services start when they are told to, and as often."""


@dataclass(frozen=True)
class Part:
    """Something that is done on a Spark again and again."""

    name: str
    interval: float
    """Seconds between two, by default."""
    host: str
    """That it is asked of."""
    once: str
    """As a script."""


def parts() -> list[Part]:
    watchdog, monitoring = _defaults("watchdog"), _defaults("monitoring")
    scraped = monitoring["monitoring_interval"]
    agent = f"exec 3<>/dev/tcp/{AT}/{_told_gateway('agent-port')}; cat <&3 >/dev/null"
    return [
        Part("a look of the watchdog", watchdog["watchdog_interval"], SPARK, "systemctl start sparkfleet-watchdog.service"),
        Part("an answer to a gateway", float(_told_gateway('agent-inter')), GATE, f"bash -c '{agent}'"),
        Part("the series of the Spark", monitoring["monitoring_series_interval"], SPARK, "systemctl start sparkfleet-series.service"),
        Part("a scrape of vLLM", scraped, GATE, f"curl -fsS -o /dev/null http://{AT}:8000/metrics"),
        Part("a scrape of the node exporter", scraped, GATE, f"curl -fsS -o /dev/null http://{AT}:9100/metrics"),
    ]  # fmt: skip


def _defaults(role: str) -> Mapping[str, float]:
    found: Mapping[str, float] = yaml.safe_load((ROOT / f"roles/{role}/defaults/main.yml").read_text())
    return found


def _told_gateway(option: str) -> str:
    """What the gateway's configuration says of how it asks watchdogs."""
    found = re.search(rf"{option} (\d+)", on(GATE, "cat /etc/haproxy/sparkfleet/haproxy.cfg"))
    if not found:
        raise BenchError(f"expected {option} in the configuration of {GATE}, seen none")
    return found[1]


def cost(used: float, seconds: float, idle: float, times: int, interval: float) -> float:
    """Processor seconds an hour of one part.

    :param used: processor seconds that the Spark took while the part was done `times` times, in `seconds`
    :param idle: processor seconds that it takes in a second without
    """
    return max(0.0, used - idle * seconds) / times * HOUR / interval


def share(without: Sequence[float], with_all: Sequence[float], speed: float) -> list[float]:
    """Of each round, the share of decoding that is lost at the usual speed; less than nothing where noise was larger.

    :param without: tokens a second of each round
    :param with_all: likewise, with all parts at `speed` times their usual speed
    """
    return [(one / other - 1) / speed for one, other in zip(without, with_all, strict=True)]


# -- the lab


def used() -> float:
    """Processor seconds of the Spark so far."""
    return float(on(SPARK, USED)) / 1e9


def idle(seconds: float = 30.0) -> float:
    before, began = used(), time.monotonic()
    time.sleep(seconds)
    return (used() - before) / (time.monotonic() - began)


def again_and_again(part: Part, times: int) -> tuple[float, float]:
    """(processor seconds of the Spark, seconds) of so many in a row."""
    before, began = used(), time.monotonic()
    on(part.host, f"for i in $(seq {times}); do {part.once}; done")
    return used() - before, time.monotonic() - began


def largest(unit: str) -> float:
    """MiB of memory of what a unit starts, at its largest."""
    argv = on(
        SPARK, f"systemctl show -p ExecStart --value {unit} | sed 's/.*argv\\[\\]=//; s/ ;.*//'"
    ).split()
    asked = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
    asked += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)"
    return float(on(SPARK, f"python3 -c '{asked}' {' '.join(argv)}").split()[-1])


def resident(program: str) -> float:
    """MiB of memory of all processes of that name, now."""
    return float(on(SPARK, f"ps -o rss= -C {program} | awk '{{sum += $1}} END {{print sum / 1024}}'"))


@contextmanager
def often(all_parts: Sequence[Part], speed: float) -> Iterator[None]:
    """All parts, each so much more often than usual."""
    over = threading.Event()

    def again(part: Part) -> None:
        due = time.monotonic()
        while not over.is_set():
            on(part.host, part.once, check=False)
            due = max(due + part.interval / speed, time.monotonic() - part.interval)
            over.wait(max(0.0, due - time.monotonic()))

    threads = [threading.Thread(target=again, args=(part,), daemon=True) for part in all_parts]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def rate(model: str, tokens: int) -> float:
    """Tokens a second of one answer."""
    asked = json.dumps(
        {"model": model, "prompt": "1 2 3", "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
    )
    began = time.monotonic()
    said = json.loads(
        on(
            SPARK,
            f"curl -fsS -m 300 http://127.0.0.1:8000/v1/completions -H 'Content-Type: application/json' -d '{asked}'",
        )
    )
    made = said["usage"]["completion_tokens"]
    if made != tokens:
        raise BenchError(f"expected {tokens} tokens, seen {made}")
    return float(made / (time.monotonic() - began))


def measure(speed: float, rounds: int, tokens: int, times: int) -> bool:
    """Whether the goal is met."""
    all_parts = parts()
    on(SPARK, UNLIMITED)
    on(GATE, "systemctl stop sparkfleet-gateway prometheus")
    model = json.loads(on(SPARK, "curl -fsS http://127.0.0.1:8000/v1/models"))["data"][0]["id"]
    alone = idle()
    whole = 0.0
    print(f"{'part':<32} every s   processor s each   processor s an hour")
    for part in all_parts:
        taken, seconds = again_and_again(part, times)
        hour = cost(taken, seconds, alone, times, part.interval)
        whole += hour
        print(
            f"{part.name:<32} {part.interval:<9g} {hour * part.interval / HOUR:<18.3f} {hour:.0f}", flush=True
        )
    print(f"{'all':<32} {'':<9} {'':<18} {whole:.0f}, {whole / HOUR:.2%} of one core")
    for unit in ("sparkfleet-watchdog.service", "sparkfleet-series.service"):
        print(f"memory of {unit} while it runs: {largest(unit):.0f} MiB")
    print(f"memory of the node exporter: {resident('prometheus-node'):.0f} MiB")
    rate(model, tokens)
    without, with_all = [], []
    for _ in range(rounds):
        without.append(rate(model, tokens))
        with often(all_parts, speed):
            time.sleep(2)
            with_all.append(rate(model, tokens))
    lost = share(without, with_all, speed)
    print(
        f"one stream: {statistics.mean(without):.2f} tokens a second without, {statistics.mean(with_all):.2f} with all of it {speed:g} "
        f"times as often; at the usual speed {statistics.median(lost):.3%} less (rounds: {', '.join(f'{one:.3%}' for one in lost)})"
    )
    met = statistics.median(lost) < GOAL
    print(f"under {GOAL:.1%} of decoding: {'met' if met else 'NOT met'}")
    return met


def main() -> int:
    given = os.environ.get
    speed, rounds = float(given("SPEED", "20")), int(given("ROUNDS", "8"))
    tokens, times = int(given("TOKENS", "400")), int(given("TIMES", "20"))
    return deployed(INVENTORY, "controller, gateway and Spark", lambda: measure(speed, rounds, tokens, times))


if __name__ == "__main__":
    sys.exit(main())
