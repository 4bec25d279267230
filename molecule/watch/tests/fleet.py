"""The scenario's fleet: two Sparks and their gateway."""

from __future__ import annotations

from pathlib import Path

import gateways

SCENARIO = Path(__file__).parents[1]
SPARKS = ["watch-1", "watch-2"]
GATE, AT = "watch-gate", "172.31.250.105"
KEY = "sk-lab-Yd7Ru2Kx9Wm4Tb6Np1Zs8Qf3Vh5Lc0Ga"
SERVER_KEY = "key-of-the-scenario-watch"
POOL = "stub"


def states() -> dict[str, str]:
    return gateways.states(GATE, POOL)


def all_up() -> bool:
    return states() == dict.fromkeys(SPARKS, "UP")
