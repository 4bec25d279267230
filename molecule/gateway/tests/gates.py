"""The scenario's fleet as its gateways see it."""

from __future__ import annotations

from pathlib import Path

import gateways

SCENARIO = Path(__file__).parents[1]
SPARKS = ["pool-1", "pool-2", "pool-3", "pool-4"]
GATES = {"gate-1": "172.31.250.115", "gate-2": "172.31.250.116"}
KEY = "sk-lab-Vb4Xw0nq2Lr8TzK6yHc1Mf7PdJe3Ga9s"
POOL = "stub"


def states(gate: str) -> dict[str, str]:
    """Of each server: UP, DOWN, DRAIN, MAINT and what comes after."""
    return gateways.states(gate, POOL)


def busiest(gate: str) -> str:
    """The server that has most requests now."""
    return gateways.busiest(gate, POOL)


def all_up() -> bool:
    return all(states(gate) == dict.fromkeys(SPARKS, "UP") for gate in GATES)
