#!/usr/bin/env python3
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""make bench-sync: how long a snapshot takes to reach 1, 2, 4 and 8 hosts over links of a given speed, by rsync as a star, by
rsync in doubling waves, and by the collection; the cost of a sync that has nothing to bring; the cost of hashing.

Settings are in the environment: LINK (40mbit), SIZE (MB, 80), RECEIVERS ("1 2 4 8"), HASH (MB, 2000), KEEP (1: leave
the hosts). The script makes the hosts bench-0 to bench-8, and removes them afterwards.
"""

from __future__ import annotations

import os
import re
import sys
from datetime import datetime, timezone

import bench_figures
import bench_lab
import bench_ways
from bench_lab import BenchError, Host, Measured

GOAL_RECEIVERS, GOAL_COPIES, GOAL_NOOP, GOAL_HASH = 8, 1.5, 1.0, 0.9
CPU_LIMIT = 0.8
"""Share of the cores above which the machine, and not its links, may set the pace."""


def say(text: str = "") -> None:
    print(text, flush=True)


def verdict(good: bool) -> str:
    return "met" if good else "NOT met"


def compare_ways(mbit: int, megabytes: int, counts: list[int]) -> None:
    hosts = [Host(number) for number in range(max(counts) + 1)]
    first = hosts[0]
    payload = bench_ways.make(first, megabytes)
    say(
        f"{len(payload.files)} files, {payload.size / 1e6:.0f} MB of random bytes; links of {mbit} Mbit/s each way (tc);"
    )
    say(
        f"bare wire time of one copy {payload.size * 8 / mbit / 1e6:.1f} s; described in {payload.described:.1f} s, once."
    )
    say("Time: from the order to the last receiver that has it verified and in place.")
    bench_lab.limit(hosts, mbit)
    try:
        say(f"\n{'way':<15} receivers  seconds  of one copy  of the star  copies sent by the first  CPU busy")
        stars: dict[int, float] = {}
        one = 0.0
        last: dict[str, Measured] = {}
        for count in counts:
            for way, run in bench_ways.WAYS.items():
                if way == "waves" and count == 1:
                    continue  # the same as the star
                result = run(first, hosts[1 : count + 1], payload)
                if way == "star":
                    stars[count] = result.seconds
                    one = one or result.seconds
                last[way] = result
                say(
                    f"{way:<15} {count:>9}  {result.seconds:>7.1f}  {result.seconds / one:>11.2f}  "
                    f"{result.seconds / stars[count]:>11.2f}  {result.sent / payload.size:>24.2f}  {result.busy:>7.0%}"
                )
    finally:
        bench_lab.unlimit(hosts)
    if counts[0] == 1 and counts[-1] == GOAL_RECEIVERS:
        result = last["BitTorrent v2"]
        ratio = result.seconds / one
        limit = (
            f"; CPU busy {result.busy:.0%}: the machine may be the limit" if result.busy > CPU_LIMIT else ""
        )
        say(
            f"\n{GOAL_RECEIVERS} receivers in {ratio:.2f} of one copy; goal {GOAL_COPIES}: {verdict(ratio <= GOAL_COPIES)}{limit}"
        )


def figures(megabytes: int, receivers: int) -> None:
    noop = bench_figures.noop([Host(number) for number in range(1, receivers + 1)])
    share = noop.role / noop.hosts
    say(
        f"\nNothing to do, 30 GB in {noop.files} files (sparse, with a stat cache that vouches for them): the module "
        f"{noop.module:.2f} s;\nthe role adds {noop.role:.1f} s to a playbook over {noop.hosts} hosts, {share:.2f} s a host; "
        f"goal {GOAL_NOOP:.0f} s: {verdict(max(share, noop.module) < GOAL_NOOP)}"
    )
    hashed = bench_figures.rehash(Host(0), megabytes)
    ratio = hashed.sha256sum / hashed.module
    say(
        f"\nEverything hashed again, {hashed.bytes / 1e9:.1f} GB in the page cache: the module {hashed.module:.2f} s, as many "
        f"sha256sum as cores {hashed.sha256sum:.2f} s,\nopenssl dgst -sha256 likewise {hashed.openssl:.2f} s. "
        f"Speed of the module {ratio:.2f} of sha256sum's, {hashed.openssl / hashed.module:.2f} of openssl's; "
        f"goal {GOAL_HASH} of sha256sum's: {verdict(ratio >= GOAL_HASH)}"
    )


def main() -> None:
    link = os.environ.get("LINK", "40mbit")
    counts = sorted({int(text) for text in os.environ.get("RECEIVERS", "1 2 4 8").split()})
    if not re.fullmatch(r"[1-9]\d*mbit", link) or not counts or not 1 <= counts[0] <= counts[-1] <= 8:
        sys.exit(
            f"expected LINK=<number>mbit and RECEIVERS of 1 to 8, seen {link} and {counts}; correct them"
        )
    mbit = int(link.removesuffix("mbit"))
    try:
        bench_lab.create()
        bench_lab.prepare([Host(number) for number in range(9)])
        say(
            f"\n{datetime.now(timezone.utc):%Y-%m-%d}, {bench_lab.machine()}, {bench_lab.busy():.0%} busy with other things"
        )
        compare_ways(mbit, int(os.environ.get("SIZE", "80")), counts)
        figures(int(os.environ.get("HASH", "2000")), counts[-1])
    except BenchError as error:
        sys.exit(f"FAILED: {error}")
    finally:
        if os.environ.get("KEEP") != "1":
            bench_lab.destroy()


if __name__ == "__main__":
    main()
