# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lab Spark as its watchdog has seen it."""

from __future__ import annotations

import json
import time
from typing import Any

from testing import on, until

NAME = "sparkfleet-vllm"
FOLDER = "/var/lib/sparkfleet/watchdog"


def verdict(spark: str) -> dict[str, Any]:
    """Of its last look. The first one comes a few seconds after a start."""
    text = until(lambda: on(spark, f"cat {FOLDER}/verdict.json 2>/dev/null || true"))
    found: dict[str, Any] = json.loads(text)
    return found


def watched(spark: str) -> bool:
    """Whether it has a watchdog at all."""
    return (
        on(spark, "systemctl is-enabled sparkfleet-watchdog.timer 2>/dev/null || true").strip() == "enabled"
    )


def kinds(spark: str) -> set[str]:
    return {finding["kind"] for finding in verdict(spark)["findings"]}


def evidence(spark: str) -> list[str]:
    """Names of the folders, the oldest first."""
    return on(spark, f"ls {FOLDER}/evidence 2>/dev/null || true").split()


def started(spark: str) -> str:
    """When the container was started, as the engine says it."""
    return on(spark, f"docker inspect --format '{{{{.State.StartedAt}}}}' {NAME}").strip()


def looks(spark: str, number: int, within: float) -> list[dict[str, Any]]:
    """The verdicts of so many looks from now on."""
    found = [verdict(spark)]

    def another() -> bool:
        last = verdict(spark)
        if last["looked_at"] != found[-1]["looked_at"]:
            found.append(last)
        return len(found) > number

    until(another, within, every=0.5)
    return found[1:]


def forgotten(*sparks: str) -> None:
    """As after an hour: systemd counts starts anew, and the watchdog its restarts. Verdicts and evidence of before are gone."""
    for spark in sparks:
        on(
            spark,
            f"systemctl stop sparkfleet-watchdog.timer; rm -rf {FOLDER}/memory.json {FOLDER}/verdict.json {FOLDER}/evidence; "
            f"systemctl reset-failed {NAME} || true; systemctl start {NAME} sparkfleet-watchdog.timer",
        )


def makes_tokens(spark: str) -> bool:
    """Whether its engine works on requests. Which Spark gets which conversation is the gateway's choice."""
    told = on(spark, "curl -fsS --max-time 5 http://127.0.0.1:8000/metrics")
    return any(
        line.startswith("vllm:num_requests_running{") and float(line.split()[-1]) > 0
        for line in told.splitlines()
    )


def found_within(spark: str, kind: str, began: float, before: list[str], within: float = 90) -> float:
    """Seconds from `began` until there was new evidence of this kind."""
    until(lambda: any(name.endswith(f"-{kind}") for name in evidence(spark) if name not in before), within)
    return time.time() - began
