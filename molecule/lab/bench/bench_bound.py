#!/usr/bin/env python3
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a bound of the load (gateway_limits.balance) costs the affinity, computed: two lab Sparks cannot show it for eight.

HAProxy's rule for one request: with `served` requests at work, the pool has (served + 1) * factor places, rounded up. They are dealt out
evenly; a Spark without a free one is passed over for the next on the ring, which is the same one for each conversation.

Clients hold conversations of several turns, one after the other. An answer takes a second, and SLOWER of it more for each other answer
that the Spark works on; a person pauses for a second at most. These two are assumptions.
"""

from __future__ import annotations

import heapq
import random
import statistics
from collections import Counter
from dataclasses import dataclass

from bench_conversations import TURNS

FACTORS = (125, 150, 200, 250, 300)
SPARKS, EACH = (2, 4, 8), (1, 2, 4, 8)
CONVERSATIONS, ROUNDS = 60, 3
SLOWER, PAUSE = 0.15, 1.0


@dataclass
class Pool:
    sparks: int
    factor: int

    def __post_init__(self) -> None:
        self.at_work = [0] * self.sparks

    def choose(self, ring: list[int]) -> int:
        places = -(-(sum(self.at_work) + 1) * self.factor // 100)
        for spark in ring:
            mine = (spark + 1) * places // self.sparks - spark * places // self.sparks
            if self.at_work[spark] < max(1, mine):
                return spark
        raise AssertionError("there is one place more than requests")


def kept(sparks: int, clients: int, factor: int, seed: int) -> tuple[float, float]:
    """(share of later turns whose Spark has had the conversation, requests of the busiest Spark in terms of the mean)"""
    draw = random.Random(seed)
    pool, had = Pool(sparks, factor), Counter[int]()
    later = hits = 0
    rings: dict[int, list[int]] = {}
    seen: dict[int, set[int]] = {}
    # (when, client, turn of all its turns, the Spark whose answer ends; -1: it asks)
    events = [(draw.random(), client, 0, -1) for client in range(clients)]
    heapq.heapify(events)
    while events:
        now, client, turn, spark = heapq.heappop(events)
        if spark >= 0:
            pool.at_work[spark] -= 1
            if turn + 1 < TURNS * CONVERSATIONS:
                heapq.heappush(events, (now + draw.uniform(0, PAUSE), client, turn + 1, -1))
            continue
        if turn % TURNS == 0:
            rings[client], seen[client] = draw.sample(range(sparks), sparks), set()
        spark = pool.choose(rings[client])
        if turn % TURNS:
            later += 1
            hits += spark in seen[client]
        seen[client].add(spark)
        had[spark] += 1
        takes = draw.expovariate(1 / (1 + SLOWER * pool.at_work[spark]))
        pool.at_work[spark] += 1
        heapq.heappush(events, (now + takes, client, turn, spark))
    return hits / later, max(had.values()) * sparks / had.total()


def used(sparks: int, at_once: int, factor: int) -> int:
    """Sparks that the requests of one conversation or user use, if so many come at once and there are no others."""
    pool = Pool(sparks, factor)
    for _ in range(at_once):
        pool.at_work[pool.choose(list(range(sparks)))] += 1
    return sum(map(bool, pool.at_work))


def main() -> None:
    print("Computed: later turns that find their Spark / requests of the busiest Spark in terms of the mean")
    print(f"{'Sparks':<7} {'clients':<8} " + " ".join(f"{factor:>5} %     " for factor in FACTORS))
    for sparks in SPARKS:
        for each in EACH:
            row = []
            for factor in FACTORS:
                found = [kept(sparks, sparks * each, factor, seed) for seed in range(ROUNDS)]
                hits, busiest = (statistics.mean(column) for column in zip(*found, strict=True))
                row.append(f"{hits:.2f} / {busiest:.2f}")
            print(f"{sparks:<7} {sparks * each:<8} " + " ".join(f"{text:<12}" for text in row))
    print("Sparks that 16 requests of one user at once use, of 8: ", end="")
    print(", ".join(f"{used(8, 16, factor)} with {factor} %" for factor in FACTORS))


if __name__ == "__main__":
    main()
