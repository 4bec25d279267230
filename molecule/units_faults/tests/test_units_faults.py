"""What befalls a unit, one thing after the other. Each test begins and ends with a unit that serves."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import running
import units
from running import Run
from streams import Load
from testing import on, until
from units import MAIN, NAME, SHARE, TOLERANCE, WORKER

INVENTORY = Path(__file__).parents[1] / "inventory"
HEAD, WORKS = "half-1", "half-2"
UNIT = [HEAD, WORKS]
ADDRESSES = {HEAD: "172.31.250.194", WORKS: "172.31.250.195"}
API = units.address(ADDRESSES[HEAD])
SILENCE = 15
"""Seconds after which a member counts as lost."""
FAILURES = 4
"""Within an hour, after which a unit starts again."""


@pytest.fixture
def run() -> Iterator[Callable[..., Run]]:
    yield from running.runs(INVENTORY)


@pytest.fixture(autouse=True)
def former() -> str:
    """The generation that serves at the beginning. Failures of former tests must not take the unit down in this one."""
    if units.status(HEAD).get("restarts", FAILURES) < 2 and (found := units.generation(UNIT)):
        return found
    return units.afresh(UNIT, API)


@pytest.fixture
def apart() -> Iterator[Callable[[], None]]:
    """Cuts the members from each other, and mends it at the latest when the test ends."""
    is_cut: list[bool] = []

    def change() -> None:
        if is_cut:
            units.mend(WORKS, ADDRESSES[HEAD])
            is_cut.clear()
        else:
            units.cut(WORKS, ADDRESSES[HEAD])
            is_cut.append(True)

    yield change
    if is_cut:
        change()


def load(**given: Any) -> Load:
    return Load(API, **{"clients": 1, "tokens": 100, **given})


def lost(spark: str, within: float = 60) -> float:
    """Seconds until a member runs no longer."""
    began = time.time()
    until(lambda: units.phase(spark) != "running", within)
    return time.time() - began


def site(run: Callable[..., Run], *options: str, **extra: Any) -> Run:
    done = run("site", *options, **extra).end()
    assert not done.failed, done.output
    return done


def drift(run: Callable[..., Run], folder: Path) -> tuple[dict[str, set[str]], Run]:
    """The kinds of findings of each member."""
    done = run("drift", drift_output=str(folder)).end()
    hosts = json.loads((folder / "drift.json").read_text())["hosts"]
    return {spark: {found["kind"] for found in hosts[spark]["findings"]} for spark in UNIT}, done


def measured(done: Run) -> float:
    """Per cent of the drafts that were accepted, as the last table says."""
    shown = re.search(r"\s(\d+\.\d)%\s", done.row(HEAD))
    assert shown, done.output
    return float(shown[1])


def test_a_link_that_is_away_for_a_moment_ends_nothing(apart, former):
    with load() as busy:
        time.sleep(3)
        apart()
        time.sleep(SILENCE / 3)
        apart()
        time.sleep(SILENCE)
    assert busy.faults == [] and busy.done
    assert units.generation(UNIT) == former


def test_a_link_that_is_away_for_half_a_minute_under_load_is_noticed_and_all_serve_again(apart, former):
    failures = units.status(HEAD)["restarts"]
    with load() as busy:
        time.sleep(3)
        apart()
        noticed = [lost(spark) for spark in UNIT]
        time.sleep(max(0, 30 - sum(noticed)))
        until(lambda: {units.phase(spark) for spark in UNIT} == {"waiting"})
        apart()
        mended = time.time()
        units.serves_anew(UNIT, API, former)
    again = time.time() - mended
    print(f"noticed after {sum(noticed):.1f} s, serves {again:.1f} s after the link is there again")
    assert noticed[0] < 2 * SILENCE
    assert busy.faults, "a stream that was cut says so"
    assert units.status(HEAD)["restarts"] == failures + 1, "a wait is no failure"


def test_a_member_that_is_paused_is_noticed_and_all_serve_again(former):
    on(WORKS, f"docker pause {NAME}")
    noticed = lost(HEAD)
    assert units.phase(WORKS) == ""
    on(WORKS, f"docker unpause {NAME}")
    units.serves_anew(UNIT, API, former)
    assert noticed < 2 * SILENCE


def test_a_worker_that_hangs_while_its_supervisor_lives_is_noticed_under_load(former):
    """By vLLM's own limit for one step: its head gives up, so all end, the worker that hangs too."""
    with load(tokens=400):
        time.sleep(3)
        on(WORKS, f"pkill -STOP --full '{WORKER}'")
        noticed = lost(HEAD, within=120)
        units.serves_anew(UNIT, API, former)
    print(f"noticed after {noticed:.1f} s")
    assert on(WORKS, f"pgrep --full --runstates T '{WORKER}' || true") == "", (
        "nothing of the former one is left"
    )


@pytest.mark.parametrize("spark", UNIT)
def test_an_engine_that_is_killed_under_load_ends_all_and_all_serve_again(spark, former):
    with load():
        time.sleep(3)
        on(spark, f"pkill -9 --full '{WORKER}'")
        units.serves_anew(UNIT, API, former)


def test_a_head_that_is_restarted_alone_finds_its_worker_again(former):
    before = units.life(WORKS)
    on(HEAD, f"systemctl reset-failed {NAME} || true; systemctl restart {NAME}")
    units.serves_anew(UNIT, API, former)
    assert units.life(WORKS) == before, "the container of the worker ran on"


def test_a_worker_that_is_stopped_alone_is_waited_for(former):
    on(WORKS, f"systemctl stop {NAME}")
    until(lambda: units.phase(HEAD) == "waiting", within=60)
    time.sleep(SILENCE)
    assert units.phase(HEAD) == "waiting" and units.status(HEAD)["restarts"] < FAILURES
    on(WORKS, f"systemctl reset-failed {NAME} || true; systemctl start {NAME}")
    units.serves_anew(UNIT, API, former)


def test_drift_names_a_worker_of_a_former_generation(run, former, tmp_path):
    """Its supervisor hangs, so its server does not learn that the head has given up."""
    on(WORKS, f"kill -STOP {MAIN}")
    try:
        until(lambda: units.phase(HEAD) == "waiting", within=60)
        kinds, done = drift(run, tmp_path)
    finally:
        on(WORKS, f"kill -CONT {MAIN}")
    assert done.failed
    of_the_unit = {kind for kind in kinds[WORKS] if kind.startswith("unit-")}
    assert of_the_unit and not any("guard" in kind for kind in of_the_unit), done.output
    units.serves_anew(UNIT, API, former)


def test_a_worker_with_another_draft_passes_every_check_but_the_gate(run, former):
    """As if nothing had compared the members: what lies in its store is another draft, and its container is the recorded one."""
    place = units.recorded(WORKS)["serving"]["models"]["draft"]["path"]
    other = units.other_models(WORKS)["draft"]
    again = f"systemctl reset-failed {NAME} || true; systemctl restart {NAME}"
    on(WORKS, f"mv {place} {place}.kept; cp -a {other} {place}; {again}")
    try:
        mixed = units.serves_anew(UNIT, API, former)
        seen = run("verify").end()
    finally:
        on(WORKS, f"rm -rf {place}; mv {place}.kept {place}; {again}")
    units.serves_anew(UNIT, API, mixed)
    # A tour of the numbers takes 1342 drafts then, of which 348 are accepted: half of each draft says what it should.
    assert seen.failed and 10 < measured(seen) < 40, seen.output
    well = run("verify").end()
    assert not well.failed and measured(well) == pytest.approx(100 * SHARE, abs=100 * TOLERANCE), well.output


def test_a_change_that_does_not_pass_on_the_head_is_taken_back_on_all(run, former):
    before = (
        [units.recorded(spark)["serving"] for spark in UNIT],
        [units.container(spark)["Config"]["Cmd"] for spark in UNIT],
    )
    changed = {
        "enforce-eager": True,
        "max-num-seqs": 3,
        "max-model-len": 2048,
        "kv-cache-dtype": "auto",
        "kv-cache-memory-bytes": "64M",
        "shutdown-timeout": 10,
    }
    done = run("site", vllm_serve_extra_arguments=changed, vllm_serve_acceptance_floor=0.9).end()
    assert done.failed, done.output
    for spark in UNIT:
        assert "rolled back, and that passes" in done.row(spark), done.output
    units.serves_anew(UNIT, API, former)
    after = (
        [units.recorded(spark)["serving"] for spark in UNIT],
        [units.container(spark)["Config"]["Cmd"] for spark in UNIT],
    )
    assert after == before


def test_a_deliberate_stop_stops_all_and_stays_one(run, former):
    stopped = run("stop").end()
    assert not stopped.failed, stopped.output
    for spark in UNIT:
        assert units.container(spark)["State"]["Status"] == "exited"
        assert on(spark, f"pgrep --full '{WORKER}' || true") == ""
    site(run)
    units.serves_anew(UNIT, API, former)


def test_a_worker_that_loses_its_power_is_noticed_and_all_serve_again(former):
    running.power_off(WORKS)
    noticed = lost(HEAD)
    running.power_on(WORKS)
    units.serves_anew(UNIT, API, former)
    assert noticed < 2 * SILENCE


def test_a_head_that_boots_finds_its_worker_again_and_keeps_its_ports(former):
    running.restart(HEAD)
    units.serves_anew(UNIT, API, former)
    assert ADDRESSES[WORKS] in on(HEAD, "nft list table inet sparkfleet_unit")


def test_one_failure_too_many_within_the_hour_and_the_unit_stays_down(former):
    """Until somebody starts the container of the head anew."""
    units.afresh(UNIT, API)
    for number in range(1, FAILURES + 2):
        on(WORKS, f"pkill -9 --full '{WORKER}'")
        until(lambda number=number: units.status(HEAD)["restarts"] == number, within=60)
        if number <= FAILURES:
            # It need not serve to fail again: a process of the worker is enough.
            until(lambda: on(WORKS, f"pgrep --full '{WORKER}' || true"), within=120)
    until(lambda: [units.phase(spark) for spark in UNIT] == ["down", "down"], within=60)
    before = [units.life(spark) for spark in UNIT]
    time.sleep(SILENCE)
    assert [units.phase(spark) for spark in UNIT] == ["down", "down"]
    assert [units.life(spark) for spark in UNIT] == before, "nothing starts them again and again"
    assert "Do: " in on(HEAD, f"docker logs --tail 50 {NAME} 2>&1")
    on(HEAD, f"systemctl reset-failed {NAME} || true; systemctl restart {NAME}")
    units.serves_anew(UNIT, API, "")


def test_after_all_that_no_drift_is_left_and_a_run_changes_nothing(run, tmp_path):
    site(run)
    kinds, done = drift(run, tmp_path)
    assert kinds == {spark: set() for spark in UNIT}, done.output
    before = [units.life(spark) for spark in UNIT], units.generation(UNIT)
    again = site(run)
    for spark in UNIT:
        assert re.search(rf"^{spark}\s*: ok=\d+\s+changed=0\s", again.output, re.MULTILINE), again.output
    assert ([units.life(spark) for spark in UNIT], units.generation(UNIT)) == before
