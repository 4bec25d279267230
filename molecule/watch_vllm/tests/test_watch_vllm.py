"""Real vLLM whose engine process hangs while its server goes on to say that it is healthy: found, and brought back, twice within an hour."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import gateways
import pytest
import running
from streams import Address, Load
from testing import on, until
from watched import NAME, evidence, forgotten, found_within, makes_tokens, started, verdict

INVENTORY = Path(__file__).parents[1] / "inventory"
KEY = "sk-lab-Nw6Bq1Xe8Tz3Hk5Jr9Ym2Cd7Sp4Fv0Ua"
GATE, POOL = "awake-gate", "huihui-gemma4"
SPARKS = ["awake-1", "awake-2"]
HANGS = (
    f"kill -STOP $(pgrep --full EngineCore --parent $(docker inspect --format '{{{{.State.Pid}}}}' {NAME}))"
)
HEALTHY = 600.0
"""Seconds of load in which nothing is to be found."""


@pytest.fixture
def run() -> Iterator[Callable[..., running.Run]]:
    yield from running.runs(INVENTORY)


@pytest.fixture
def address() -> Address:
    return gateways.address(GATE, "172.31.250.108", KEY, POOL, silence=120)


def states() -> dict[str, str]:
    return gateways.states(GATE, POOL)


def all_up() -> bool:
    return states() == dict.fromkeys(SPARKS, "UP")


@pytest.fixture(autouse=True)
def serving() -> None:
    forgotten(*SPARKS)
    until(all_up, within=300)
    for spark in SPARKS:
        until(lambda spark=spark: verdict(spark)["verdict"] == "well", within=300)


def load(address: Address, **given: float) -> Load:
    return Load(address, clients=2, **{"tokens": 200, "pause": 1, **given})


def test_ten_minutes_of_load_in_which_nothing_is_found(address):
    lives = [started(spark) for spark in SPARKS]
    seen: dict[str, set[str]] = {spark: set() for spark in SPARKS}
    with load(address) as busy:
        over = time.monotonic() + HEALTHY
        while time.monotonic() < over:
            for spark in SPARKS:
                last = verdict(spark)
                seen[spark] |= {last["verdict"], *(each["kind"] for each in last["findings"])}
            time.sleep(10)
    print(f"{len(busy.done)} streams in {HEALTHY:g} s, findings: none")
    assert seen == {spark: {"well"} for spark in SPARKS}
    assert busy.faults == []
    assert ([started(spark) for spark in SPARKS], [evidence(spark) for spark in SPARKS]) == (lives, [[], []])


def test_an_engine_that_hangs_is_restarted_twice_and_the_third_time_stays_down(address, run):
    spark = "awake-1"
    with load(address, tokens=1500, pause=0) as busy:
        for _ in range(2):
            until(lambda: makes_tokens(spark), within=120)
            kept, life, began = evidence(spark), started(spark), time.time()
            on(spark, HANGS)
            assert (
                on(spark, "curl -fs -o /dev/null -m 5 http://127.0.0.1:8000/health && echo healthy").strip()
                == "healthy"
            )
            noticed = found_within(spark, "wedged", began, kept)
            until(lambda life=life: started(spark) != life)
            out = time.time()
            until(lambda: states()[spark].startswith("DOWN"))
            until(all_up, within=300)
            until(lambda: verdict(spark)["verdict"] == "well", within=120)
            print(f"found after {noticed:.1f} s, served again after {time.time() - began:.1f} s")
            assert [stream.fault for stream in busy.asked_after(out + 1) if stream.fault] == []
        until(lambda: makes_tokens(spark), within=120)
        kept, began = evidence(spark), time.time()
        on(spark, HANGS)
        noticed = found_within(spark, "wedged", began, kept)
        until(lambda: verdict(spark)["verdict"] == "down")
        until(lambda: states()[spark] == "DOWN (agent)")
        out = time.time()
        time.sleep(20)
    print(f"third time: found after {noticed:.1f} s, stays down")
    assert states() == {"awake-1": "DOWN (agent)", "awake-2": "UP"}
    assert [stream.fault for stream in busy.asked_after(out + 1) if stream.fault] == []
    assert "stopped for good" in on(spark, "journalctl -u sparkfleet-watchdog -p err -o cat --no-pager")
    assert on(spark, f"docker inspect --format '{{{{.State.Status}}}}' {NAME}").strip() == "exited"
    done = run("site").end()
    assert not done.failed, done.output
    until(all_up, within=120)
