#!/usr/bin/env python3
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""make bench-gateway: how much of a conversation the Spark that answers it has in its prefix cache, by the gateway's affinity, round
robin and least connections, with real vLLM on two lab Sparks; and what a gateway costs, with a stub.

Settings are in the environment: CLIENTS ("2 8"), EACH (3: conversations of each client), ROUNDS (2), FACTORS ("": other values of
gateway_limits.balance to try, such as "175 200"), STREAMS (500), KEEP (1: leave the hosts). The script makes the hosts way-1, way-2 and
way-gate, and removes them afterwards. It fails where the gateway as it is misses a goal; another value of FACTORS may miss one.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import bench_conversations
import yaml
from bench_conversations import Asked
from bench_lab import HERE, ROOT, BenchError, deployed
from streams import Address
from testing import docker, on, until

INVENTORY = HERE / "gateway"
SPARKS, GATE, GATE_ADDRESS = ("way-1", "way-2"), "way-gate", "172.31.250.123"
MODEL = "huihui-gemma4"
CONFIG = "/etc/haproxy/sparkfleet/haproxy.cfg"
GOAL_HITS, GOAL_LOAD, GOAL_ADDED, GOAL_STREAMS = 0.9, 1.5, 1.0, 500
TOKENS_A_SECOND = 25
"""Of one stream, to say how many of them a core would hold."""
ALONE, OURS = "one Spark alone", "affinity"
OTHERS = {"round robin": "roundrobin", "least connections": "leastconn"}


@dataclass(frozen=True)
class Counters:
    """Of one Spark, as vLLM counts them."""

    requests: float = 0
    prompt: float = 0
    """Tokens of all prompts."""
    hits: float = 0
    """Tokens of them that were in the cache."""

    def __add__(self, other: Counters) -> Counters:
        return Counters(self.requests + other.requests, self.prompt + other.prompt, self.hits + other.hits)

    def __sub__(self, other: Counters) -> Counters:
        return Counters(self.requests - other.requests, self.prompt - other.prompt, self.hits - other.hits)


@dataclass(frozen=True)
class Seen:
    asked: Asked
    by_spark: tuple[Counters, ...]

    @property
    def hit_rate(self) -> float:
        whole = sum(self.by_spark, Counters())
        return whole.hits / max(1.0, whole.prompt)

    @property
    def load(self) -> float:
        """Requests of the Spark that had most, in terms of the mean."""
        counts = [each.requests for each in self.by_spark]
        return max(counts) / max(1.0, statistics.mean(counts))


@dataclass(frozen=True)
class Figures:
    """Of one way to choose a server: means of all rounds, and milliseconds to the first token of all requests."""

    hit_rate: float
    load: float
    first: list[float]


def figures(rounds: Sequence[Seen]) -> Figures:
    return Figures(
        statistics.mean(one.hit_rate for one in rounds),
        statistics.mean(one.load for one in rounds),
        sorted(1000 * taken for one in rounds for taken in one.asked.first_tokens),
    )


def at(share: float, values: Sequence[float]) -> float:
    """Which of the values, from the least to the most, has that share of them below it."""
    return values[int(share * len(values))]


def counters(metrics: str) -> Counters:
    def of(name: str) -> float:
        return sum(
            float(value) for value in re.findall(rf"^vllm:{name}\{{[^}}]*\}} (\S+)$", metrics, re.MULTILINE)
        )

    return Counters(
        of("request_success_total"), of("prefix_cache_queries_total"), of("prefix_cache_hits_total")
    )


def counted() -> list[Counters]:
    """Of each Spark."""
    return [counters(on(spark, "curl -fsS -m 10 http://127.0.0.1:8000/metrics")) for spark in SPARKS]


def go(way: str) -> None:
    """Have the gateway choose its servers in that way."""
    ready = "maintenance" if way == ALONE else "ready"
    edit = f"cp {CONFIG}.ours {CONFIG}"
    if way in OTHERS:
        edit += f"; sed -i -e 's/balance hash .*/balance {OTHERS[way]}/' -e '/hash-type /d; /hash-balance-factor /d' {CONFIG}"
    elif way.startswith(f"{OURS} "):
        edit += f"; sed -i 's/hash-balance-factor .*/hash-balance-factor {way.split()[1]}/' {CONFIG}"
    on(
        GATE,
        f"[ -e {CONFIG}.ours ] || cp {CONFIG} {CONFIG}.ours; {edit}; systemctl reload sparkfleet-gateway",
    )
    module(f"name={SPARKS[1]} state={ready} timeout=60")
    until(lambda: states().count("UP") == (1 if way == ALONE else 2), within=30)


def states() -> list[str]:
    text = on(GATE, "echo '@1 show stat -1 4 -1' | socat - UNIX-CONNECT:/run/sparkfleet-gateway/master.sock")
    return [
        line.split(",")[17]
        for line in text.splitlines()
        if line.split(",")[1:2] in ([name] for name in SPARKS)
    ]


def ran(*command: str) -> str:
    """:raises BenchError: it failed"""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise BenchError(f"expected {command[0]} to succeed, seen {done.stdout[-3000:]}{done.stderr[-500:]}")
    return done.stdout


def module(arguments: str) -> None:
    ran("ansible", "-i", str(INVENTORY), GATE, "-b", "-m", "sparkfleet.vllm.gateway_server", "-a", arguments)


def key() -> str:
    given = yaml.safe_load((INVENTORY / "group_vars/gateways/bench.yml").read_text())
    return str(given["gateway_keys"][0]["key"])


def measure(way: str, address: Address, clients: int, each: int, seed: str) -> Seen:
    go(way)
    before = counted()
    asked = bench_conversations.hold(address, clients, each, seed)
    if asked.faults:
        raise BenchError(f"{way}: expected every request to be answered, seen {asked.faults[:3]}")
    return Seen(asked, tuple(now - past for now, past in zip(counted(), before, strict=True)))


def conversations(counts: Sequence[int], each: int, rounds: int, factors: Sequence[str]) -> bool:
    """Whether the gateway meets its goals."""
    ways = [ALONE, OURS, *(f"{OURS} {factor} %" for factor in factors), *OTHERS]
    address = Address(
        f"https://{GATE_ADDRESS}", key(), MODEL, on(GATE, "cat /etc/haproxy/sparkfleet-lab/ca.pem")
    )
    # What is made at a first request is made before.
    bench_conversations.hold(address, 4, 1, "warm")
    print(
        f"{bench_conversations.TURNS} turns a conversation, {each} conversations a client, {rounds} rounds\n"
        f"{'clients':<8} {'way':<18} hit rate  of one alone  most loaded  first token p50 ms  p99"
    )
    good = True
    for clients in counts:
        found: dict[str, list[Seen]] = {way: [] for way in ways}
        for number in range(rounds):
            for way, seen in found.items():
                seen.append(measure(way, address, clients, each, f"{way} {clients} {number}"))
        alone = figures(found[ALONE])
        for way, seen in found.items():
            one = figures(seen)
            print(
                f"{clients:<8} {way:<18} {one.hit_rate:<9.3f} {one.hit_rate / alone.hit_rate:<13.2f} "
                f"{'-' if way == ALONE else f'{one.load:.2f}':<12} {at(0.5, one.first):<19.0f} {at(0.99, one.first):.0f}",
                flush=True,
            )
            if way.startswith(OURS):
                met = say_whether(affinity_goals(one, alone))
                good &= met or way != OURS
    go(OURS)
    return good


def affinity_goals(seen: Figures, alone: Figures) -> dict[str, bool]:
    return {
        f"hit rate at least {GOAL_HITS:g} of one Spark alone": seen.hit_rate >= GOAL_HITS * alone.hit_rate,
        f"no Spark above {GOAL_LOAD:g} of the mean load": seen.load <= GOAL_LOAD,
    }


def say_whether(goals: dict[str, bool]) -> bool:
    for goal, met in goals.items():
        print(f"         {goal}: {'met' if met else 'NOT met'}")
    return all(goals.values())


def cost(count: int) -> bool:
    """A stub takes the place of vLLM on one Spark, and clients run on the gateway: nothing but loopback and one bridge between them.

    :returns: whether the gateway meets its goals
    """
    program = HERE / "bench_streams.py"
    for host in (SPARKS[0], GATE):
        docker("cp", str(program), f"sparkfleet-lab-{host}:/root/bench_streams.py")
    module(f"name={SPARKS[1]} state=maintenance timeout=60")
    on(SPARKS[0], "docker stop -t 5 $(docker ps -q)")
    docker("exec", "-d", f"sparkfleet-lab-{SPARKS[0]}", "python3", "/root/bench_streams.py", "serve", "8000")
    until(lambda: states().count("UP") == 1, within=60)

    def run(*arguments: str) -> dict[str, list[float]]:
        result: dict[str, list[float]] = json.loads(
            on(GATE, f"python3 /root/bench_streams.py {' '.join(arguments)}")
        )
        return result

    seen = run("requests", "http://172.31.250.121:8000", "https://127.0.0.1:443", key(), MODEL, "2000")
    direct, through = (sorted(1000 * one for one in seen[way]) for way in ("direct", "gateway"))
    for share in (0.5, 0.99):
        one, other = at(share, direct), at(share, through)
        print(
            f"p{share * 100:.0f} of a request: {one:.2f} ms direct, {other:.2f} ms through the gateway, {other - one:.2f} ms added"
        )
    added = at(0.5, through) - at(0.5, direct)
    cheap = say_whether({f"under {GOAL_ADDED:g} ms added at p50": added < GOAL_ADDED})
    held = json.loads(
        on(GATE, f"python3 /root/bench_streams.py streams https://127.0.0.1:443 {key()} {MODEL} {count} 20")
    )
    print(
        f"{held['held']} streams at once, {held['ended']} of {count} whole; {held['events'] / held['seconds']:.0f} tokens a second took "
        f"{held['processor'] / held['seconds']:.2f} of a core: one core holds {a_core(held):.0f} streams of {TOKENS_A_SECOND} tokens a second"
    )
    return say_whether(streams_goal(held, count)) and cheap


def a_core(held: dict[str, float]) -> float:
    """The streams that one core would hold, by the tokens that its seconds were good for."""
    return held["events"] / held["processor"] / TOKENS_A_SECOND


def streams_goal(held: dict[str, float], count: int) -> dict[str, bool]:
    whole = held["held"] >= GOAL_STREAMS and held["ended"] == count
    return {f"at least {GOAL_STREAMS} streams at once": whole}


def main() -> int:
    given = os.environ.get
    counts = [int(count) for count in given("CLIENTS", "2 8").split()]
    each, rounds = int(given("EACH", "3")), int(given("ROUNDS", "2"))
    factors, streams = given("FACTORS", "").split(), int(given("STREAMS", "500"))

    def measured() -> bool:
        kept = conversations(counts, each, rounds, factors)
        return cost(streams) and kept

    return deployed(INVENTORY, "controller, gateway and Sparks", measured)


if __name__ == "__main__":
    sys.exit(main())
