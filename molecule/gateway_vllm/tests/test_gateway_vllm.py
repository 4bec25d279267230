"""Streams of real vLLM while the servers behind them are changed, one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import gateways
import pytest
import running
from streams import Load
from testing import on

INVENTORY = Path(__file__).parents[1] / "inventory"
KEY = "sk-lab-Hc3Tn8vWz5Rq1Yk7Bd9Mx4Lp6Gs2Jf0e"
SPARKS = ["real-1", "real-2"]


@pytest.fixture
def run() -> Iterator[Callable[..., running.Run]]:
    yield from running.runs(INVENTORY)


def test_a_rollout_cuts_no_stream(run):
    """Each stream ends whole, with the tokens that it asked for."""
    address = gateways.address("real-gate", "172.31.250.133", KEY, "huihui-gemma4", silence=120)
    before = [container(spark) for spark in SPARKS]
    with Load(address, clients=2, tokens=600, pause=2) as load:
        change = run("site", lab_round=str(time.time())).end()
    assert not change.failed, change.output
    assert all(change.row(spark).endswith(" pass") for spark in SPARKS)
    assert not set(before) & {container(spark) for spark in SPARKS}
    print(
        f"{len(load.done)} streams in {change.ended - change.began:.0f} s, {len(load.faults)} failed or cut"
    )
    assert load.faults == []
    assert len(load.done) > 20
    log = on("real-gate", "journalctl -t haproxy -o cat --no-pager")
    assert all(f" huihui-gemma4/{spark} " in log for spark in SPARKS)


def container(spark: str) -> str:
    return on(spark, "docker ps --quiet --no-trunc --filter name=sparkfleet-vllm").strip()
