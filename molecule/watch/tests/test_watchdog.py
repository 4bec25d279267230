"""What a watchdog finds while nobody runs a playbook, and what comes of it: for clients, for the Spark, for who looks later."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from fleet import GATE, SERVER_KEY, SPARKS, all_up, states
from running import Run
from streams import Load
from testing import on, until
from watched import FOLDER, NAME, evidence, found_within, kinds, looks, makes_tokens, started, verdict

pytestmark = pytest.mark.usefixtures("serving")
WEDGED = f"docker exec {NAME} touch /tmp/wedged"
"""The engine hangs, and /health says 200."""
STOPPED = f"kill -STOP $(docker inspect --format '{{{{.State.Pid}}}}' {NAME})"
"""The whole server does nothing."""
TIMER = "sparkfleet-watchdog.timer"


def load(address, **given) -> Load:
    return Load(address, **{"clients": 8, "tokens": 60, **given})


def test_in_a_healthy_server_under_load_nothing_is_found(address):
    before = [started(spark) for spark in SPARKS]
    with load(address) as busy:
        time.sleep(3)
        found = {spark: looks(spark, 4, within=60) for spark in SPARKS}
    assert busy.faults == []
    for spark, seen in found.items():
        assert {each["verdict"] for each in seen} == {"well"}, spark
        assert [each["findings"] for each in seen] == [[]] * len(seen)
        assert seen[-1]["speculation"]["acceptance_rate"] > 0.6
        assert (seen[-1]["agent"], seen[-1]["restarts"], evidence(spark)) == ("up", [], [])
    assert [started(spark) for spark in SPARKS] == before
    assert all_up()


def test_the_agent_answers_the_gateways_alone():
    ask = "timeout 5 bash -c 'cat </dev/tcp/172.31.250.103/8621' || true"
    assert on(GATE, ask) == "up\n"
    assert on("watch-2", ask) == ""


def test_a_server_that_makes_no_tokens_is_restarted_twice_and_then_stays_down(address, run):
    spark = "watch-1"
    with load(address, tokens=400, limit=600) as busy:
        for kind, fault in (("wedged", WEDGED), ("not-answering", STOPPED)):
            until(lambda: makes_tokens(spark))
            kept, life, began = evidence(spark), started(spark), time.time()
            on(spark, fault)
            noticed = found_within(spark, kind, began, kept)
            until(lambda life=life: started(spark) != life)
            again = time.time()
            until(all_up)
            print(
                f"{kind}: found after {noticed:.1f} s, again at every gateway after {time.time() - began:.1f} s"
            )
            until(lambda: verdict(spark)["verdict"] == "well")
            time.sleep(3)
            assert [stream.fault for stream in busy.asked_after(again + 1) if stream.fault] == []
        assert len(verdict(spark)["restarts"]) == 2
        until(lambda: makes_tokens(spark))
        kept, began = evidence(spark), time.time()
        on(spark, WEDGED)
        noticed = found_within(spark, "wedged", began, kept)
        until(lambda: states()[spark].startswith("DOWN"))
        out = time.time()
        until(lambda: verdict(spark)["verdict"] == "down")
        time.sleep(10)
        # Nobody starts it, and everything that is asked meanwhile is answered by the other one.
        assert on(spark, f"docker inspect --format '{{{{.State.Status}}}}' {NAME}").strip() == "exited"
        assert states() == {"watch-1": "DOWN (agent)", "watch-2": "UP"}
    print(f"third time: found after {noticed:.1f} s, stays down")
    assert [stream.fault for stream in busy.asked_after(out + 1) if stream.fault] == []
    assert busy.asked_after(out + 1)
    assert "stopped for good" in on(spark, "journalctl -u sparkfleet-watchdog -p err -o cat --no-pager")
    the_evidence_holds_no_secret(spark)
    the_run_brings_it_back(spark, run)


def the_evidence_holds_no_secret(spark: str) -> None:
    wedged = [name for name in evidence(spark) if name.endswith("-wedged")]
    kept = on(spark, f"ls {FOLDER}/evidence/{wedged[-1]}").split()
    assert {"log", "metrics"} <= set(kept)
    assert "vllm:num_requests_running" in on(spark, f"cat {FOLDER}/evidence/{wedged[-1]}/metrics")
    assert on(spark, f"docker inspect {NAME}").count(SERVER_KEY) > 0, "there is none to leave out"
    assert on(spark, f"grep -rl {SERVER_KEY} {FOLDER}/evidence || true") == ""
    assert on(spark, f"stat --format %a {FOLDER}").strip() == "700"


def the_run_brings_it_back(spark: str, run) -> None:
    drift = found_by_drift(run)
    assert "watchdog-down" in drift[spark]
    assert not drift["watch-2"] & {"watchdog-down", "watchdog-found"}
    done = run("site").end()
    assert not done.failed, done.output
    until(all_up)
    until(lambda: verdict(spark)["verdict"] == "well")
    assert verdict(spark)["restarts"] == []


@pytest.mark.long
def test_who_stays_down_is_brought_back_by_its_unit(address):
    """The second Spark may not restart its server at all."""
    spark = "watch-2"
    with load(address) as busy:
        time.sleep(3)
        began = time.time()
        on(spark, WEDGED)
        found_within(spark, "wedged", began, [])
        until(lambda: states()[spark].startswith("DOWN"))
        out = time.time()
        until(lambda: verdict(spark)["verdict"] == "down")
        on(spark, f"systemctl start {NAME}")
        until(lambda: verdict(spark)["verdict"] in ("well", "starting"))
        until(all_up)
    assert [stream.fault for stream in busy.asked_after(out + 1) if stream.fault] == []


@pytest.mark.long
def test_a_draft_that_stops_agreeing_is_told_and_nothing_is_restarted(address, run):
    spark = "watch-1"
    life = started(spark)
    with load(address) as busy:
        on(spark, f"docker exec {NAME} touch /tmp/never")
        until(lambda: kinds(spark) == {"acceptance"}, within=90)
        told = verdict(spark)
        assert "watchdog-found" in found_by_drift(run)[spark]
        on(spark, f"docker exec {NAME} rm /tmp/never")
        until(lambda: kinds(spark) == set(), within=90)
    assert told["speculation"]["acceptance_rate"] < told["speculation"]["floor"]
    assert (told["findings"][0]["severity"], told["agent"]) == ("tell", "up")
    assert (started(spark), evidence(spark)) == (life, [])
    assert busy.faults == []


@pytest.mark.long
def test_a_run_is_left_alone(address, run):
    """A watchdog that only looks says so, and takes no server away that a run is about to change."""
    spark = "watch-1"
    held = {"version": 1, "run": "1", "holder": "me@controller", "controller": "", "since": "2026-11-24T04:00:00Z", "pid": 1, "lease": 120, "playbook": "site.yml"}  # fmt: skip
    life = started(spark)
    on(spark, f"echo {json.dumps(json.dumps(held))} >/var/lib/sparkfleet/run.json; {WEDGED}")
    try:
        with load(address, tokens=20, limit=20):
            seen = looks(spark, 4, within=60)
            assert {each["verdict"] for each in seen[1:]} == {"held"}
            assert (started(spark), evidence(spark)) == (life, [])
            on(spark, f"docker exec {NAME} rm /tmp/wedged")
    finally:
        on(spark, "rm /var/lib/sparkfleet/run.json")


def found_by_drift(run) -> dict[str, set[str]]:
    """Kinds of findings of the watchdog, by Spark."""
    done: Run = run("drift", drift_output="/tmp/watch-drift").end()
    hosts = json.loads(Path("/tmp/watch-drift/drift.json").read_text())["hosts"]
    assert set(SPARKS) <= set(hosts), done.output
    return {
        name: {found["kind"] for found in hosts[name]["findings"] if found["subject"] == "watchdog"}
        for name in SPARKS
    }


@pytest.mark.long
def test_drift_names_what_was_done_to_a_watchdog_by_hand_and_a_run_mends_it(run):
    on("watch-1", f"echo '# often' >>/etc/systemd/system/{TIMER}; systemctl stop {TIMER}")
    looks("watch-2", 1, within=30)
    # The program is gone, so the timer goes on and nobody looks.
    old = f'sed -Ei \'s/"looked_at": [0-9.]+/"looked_at": 1.0/\' {FOLDER}/verdict.json'
    on("watch-2", f"rm -r /opt/sparkfleet/watchdog; sleep 6; {old}")
    by_hand = found_by_drift(run)
    assert by_hand["watch-1"] == {"watchdog-changed", "watchdog-stopped"}
    assert by_hand["watch-2"] == {"watchdog-changed", "watchdog-silent"}
    done = run("site").end()
    assert not done.failed, done.output
    because = re.findall(r"(watch-[0-9]): to be looked at, because of .*watchdog", done.output)
    assert set(because) == set(SPARKS), done.output
    for spark in SPARKS:
        looks(spark, 1, within=30)
    assert found_by_drift(run) == {spark: set() for spark in SPARKS}


@pytest.mark.long
def test_who_stops_a_server_or_the_watchdog_does_not_find_it_started_again(run):
    done = run("stop", "--limit", "watch-1").end()
    assert not done.failed, done.output
    seen = looks("watch-1", 3, within=60)
    assert {each["verdict"] for each in seen[1:]} == {"stopped"}
    assert on("watch-1", f"docker inspect --format '{{{{.State.Status}}}}' {NAME}").strip() == "exited"
    left = run("drift", drift_output="/tmp/watch-drift", spark_watchdog="off").end()
    assert left.failed and left.output.count("watchdog-left") >= len(SPARKS)
    removed = run("site", spark_watchdog="off").end()
    assert not removed.failed, removed.output
    for spark in SPARKS:
        assert on(spark, f"ls {FOLDER} /opt/sparkfleet/watchdog 2>/dev/null || true") == ""
    assert "agent-port" not in on(GATE, "cat /etc/haproxy/sparkfleet/haproxy.cfg")
    until(all_up)
