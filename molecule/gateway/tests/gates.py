"""The scenario's fleet as its gateways see it."""

from __future__ import annotations

from pathlib import Path

from testing import on

SCENARIO = Path(__file__).parents[1]
SPARKS = ["pool-1", "pool-2", "pool-3", "pool-4"]
GATES = {"gate-1": "172.31.250.115", "gate-2": "172.31.250.116"}
KEY = "sk-lab-Vb4Xw0nq2Lr8TzK6yHc1Mf7PdJe3Ga9s"
POOL = "stub"


def rows(gate: str) -> dict[str, list[str]]:
    """What HAProxy tells of each server of the pool; nothing while it is not there."""
    ask = "echo '@1 show stat -1 4 -1' | socat - UNIX-CONNECT:/run/sparkfleet-gateway/master.sock"
    text = on(gate, ask, check=False)
    found = [line.split(",") for line in text.splitlines() if line.startswith(f"{POOL},")]
    return {row[1]: row for row in found}


def states(gate: str) -> dict[str, str]:
    """Of each server: UP, DOWN, DRAIN, MAINT and what comes after."""
    return {name: row[17] for name, row in rows(gate).items()}


def busiest(gate: str) -> str:
    """The server that has most requests now."""
    requests = {name: int(row[4]) for name, row in rows(gate).items()}
    return max(requests, key=requests.__getitem__)


def all_up() -> bool:
    return all(states(gate) == dict.fromkeys(SPARKS, "UP") for gate in GATES)
