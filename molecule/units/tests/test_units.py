"""Two lab Sparks that serve one model together, as they are after a first run; one story."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import running
import units
from testing import on, until
from units import NAME, SHARE, STATE, TOLERANCE, WORKER
from watched import verdict

INVENTORY = Path(__file__).parents[1] / "inventory"
HEAD, WORKS, STRANGER = "twin-1", "twin-2", "twin-stranger"
UNIT = [HEAD, WORKS]
ADDRESSES = {HEAD: "172.31.250.191", WORKS: "172.31.250.192"}
API = units.address(ADDRESSES[HEAD])
SUPERVISOR, MASTER = 8622, 29501


@pytest.fixture
def run() -> Iterator[Callable[..., running.Run]]:
    yield from running.runs(INVENTORY)


def test_the_gate_measured_on_the_head_what_the_draft_was_made_for():
    gate = units.recorded(HEAD)["gate"]
    assert gate["drafts"] >= 200
    assert gate["acceptance_rate"] == pytest.approx(SHARE, abs=TOLERANCE)
    assert units.counts(API)


def test_both_are_on_record_with_one_unit_and_differ_by_their_rank_alone():
    serving = {spark: units.recorded(spark)["serving"] for spark in UNIT}
    for rank, spark in enumerate(UNIT):
        assert serving[spark]["unit"] == {
            "name": "pair",
            "rank": rank,
            "nodes": 2,
            "members": [{"host": name, "address": ADDRESSES[name]} for name in UNIT],
            "port": SUPERVISOR,
            "master_port": MASTER,
        }
    same = [
        {key: serving[spark][key] for key in ("recipe", "models", "files", "mounts", "memory")}
        for spark in UNIT
    ]
    assert same[0] == same[1]
    assert serving[HEAD]["container"]["image"] == serving[WORKS]["container"]["image"]
    command = {spark: serving[spark]["container"]["command"] for spark in UNIT}
    assert "--headless" in command[WORKS] and "--headless" not in command[HEAD]
    assert [command[spark][command[spark].index("--node-rank") + 1] for spark in UNIT] == ["0", "1"]


def test_both_run_in_one_generation_and_the_head_alone_answers():
    assert units.generation(UNIT)
    assert units.opens(STRANGER, ADDRESSES[HEAD], [8000]) == {8000}
    assert units.opens(STRANGER, ADDRESSES[WORKS], [22, 8000]) == {22}


@pytest.mark.parametrize("spark", UNIT)
def test_a_member_has_the_network_and_may_lock_memory_and_no_more(spark):
    seen = units.container(spark)
    limits = seen["HostConfig"]
    assert (limits["NetworkMode"], limits["IpcMode"]) == ("host", "private")
    assert limits["CapDrop"] == ["ALL"] and [name.removeprefix("CAP_") for name in limits["CapAdd"]] == [
        "IPC_LOCK"
    ]
    assert limits["Privileged"] is False and limits["SecurityOpt"] == ["no-new-privileges"]
    assert not limits["AutoRemove"] and limits["RestartPolicy"]["Name"] in ("no", "")
    writable = {mount["Destination"] for mount in seen["Mounts"] if mount["RW"]}
    assert "/run/sparkfleet/unit" in writable and not any(path.startswith("/models") for path in writable)


def test_the_key_of_the_unit_is_one_and_stands_nowhere_else():
    (key,) = {on(spark, f"cat {STATE}/unit/key").strip() for spark in UNIT}
    assert len(key) == 64
    for spark in UNIT:
        assert on(spark, f"stat --format '%a %U' {STATE}/unit/key {STATE}/unit").split("\n")[:2] == [
            "600 root",
            "700 root",
        ]
        assert key not in on(spark, f"docker inspect {NAME}; docker logs {NAME} 2>&1; cat {STATE}/state.json")


def test_nobody_but_a_member_reaches_what_has_no_authentication():
    """Found open by the other member, from the supervisor to gloo's and ZeroMQ's own ports, and closed for a stranger."""
    for spark, member in ((HEAD, WORKS), (WORKS, HEAD)):
        listening = units.listeners(spark)
        expected = {SUPERVISOR, MASTER} if spark == HEAD else set()
        assert expected < set(listening), "vLLM listens at ephemeral ports, too"
        assert units.opens(member, ADDRESSES[spark], listening) == set(listening)
        assert units.opens(STRANGER, ADDRESSES[spark], [22, *listening]) == {22}
    assert units.generation(UNIT) and units.counts(API), "what connected and said nothing did no harm"


def test_the_watchdog_judges_each_member_by_what_it_is():
    for spark in UNIT:
        until(lambda spark=spark: verdict(spark)["verdict"] == "well", within=120)


def test_a_second_run_changes_nothing(run):
    before = [units.life(spark) for spark in UNIT], units.generation(UNIT)
    done = run("site").end()
    assert not done.failed, done.output
    for spark in UNIT:
        assert re.search(rf"^{spark}\s*: ok=\d+\s+changed=0\s", done.output, re.MULTILINE), done.output
        assert done.row(spark).endswith(" pass")
    assert ([units.life(spark) for spark in UNIT], units.generation(UNIT)) == before


def test_models_of_another_commit_on_a_member_are_refused_before_anything_stops(run):
    other = units.other_models(WORKS)
    before = [units.life(spark) for spark in UNIT], [units.recorded(spark) for spark in UNIT]
    there = json.dumps({role: {"path": place} for role, place in other.items()})
    # Before the recipe is loaded, the inputs are looked at, too.
    asked = "(recipe | default({})).models | default({})"
    chosen = f"({asked} | combine({there}, recursive=true)) if recipe is defined and inventory_hostname == '{WORKS}' else {asked}"
    done = run("site", vllm_serve_models=f"{{{{ {chosen} }}}}").end()
    assert done.failed, done.output
    for words in ("expected", WORKS, *(Path(place).name[:12] for place in other.values())):
        assert words in done.output, f"nothing of {words!r}:\n{done.output}"
    assert ([units.life(spark) for spark in UNIT], [units.recorded(spark) for spark in UNIT]) == before
    assert units.counts(API)


def test_a_worker_that_is_killed_while_nobody_asks_is_noticed_and_all_serve_again():
    """vLLM's own head stays healthy for ever, and then fails the first request."""
    former, began = units.generation(UNIT), time.time()
    on(WORKS, f"pkill -9 --full '{WORKER}'")
    until(lambda: units.phase(HEAD) != "running", within=30)
    noticed = time.time() - began
    units.serves_anew(UNIT, API, former)
    print(f"noticed after {noticed:.1f} s, serves again after {time.time() - began:.1f} s")
