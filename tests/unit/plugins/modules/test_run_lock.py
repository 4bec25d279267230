"""Whose the lock of a host is, what is said of it, and the module that keeps it in a file."""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.sparkfleet.vllm.plugins.action import run_lock as action
from ansible_collections.sparkfleet.vllm.plugins.module_utils._run import lock_file
from ansible_collections.sparkfleet.vllm.plugins.module_utils._run import run_lock as host_run_lock
from ansible_collections.sparkfleet.vllm.plugins.module_utils._run.run_lock import Seen, decide
from ansible_collections.sparkfleet.vllm.plugins.modules import run_lock
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils import keeper, this_run, under_lock
from helpers.recipe import ROOT


def a_run(name, controller="boot-1", **other):
    return {
        "id": name,
        "holder": f"{name}@control",
        "controller": controller,
        "pid": 4711,
        "started": "81234",
        "playbook": "site.yml",
        "job": "",
        **other,
    }


MINE = a_run("mine")
SINCE = "2026-11-24T04:00:00Z"


def lock_of(run, age=10.0):
    return Seen(host_run_lock.record(run, 120, SINCE), age=age)


THERE, HERE, NOWHERE = (a_run("other", name) for name in ("boot-2", "boot-1", ""))


@pytest.mark.parametrize(
    ("seen", "dead", "verdict"),
    [
        (Seen(), "", "free"),
        (lock_of(MINE), "", "ours"),
        (lock_of(MINE, 9999), "", "ours"),
        (lock_of(THERE, 119), "", "held"),
        (lock_of(THERE, 121), "", "stale"),
        (lock_of(THERE, -9999), "", "held"),
        (lock_of(NOWHERE, 119), "", "held"),
        (lock_of(NOWHERE, 121), "", "stale"),
        (lock_of(HERE, 10), "", "held"),
        (lock_of(HERE, 9999), "", "held"),
        (lock_of(HERE, 10), "other", "dead"),
        (lock_of(HERE, 10), "another", "held"),
        (Seen(damage="half a file", age=119), "", "held"),
        (Seen(damage="half a file", age=121), "", "stale"),
    ],
)
def test_who_may_have_the_lock(seen, dead, verdict):
    assert decide(seen, MINE, dead) == verdict


def test_two_runs_that_know_no_controller_go_by_the_lease():
    assert decide(lock_of(NOWHERE, 121), a_run("mine", "")) == "stale"


def test_the_lease_is_that_of_the_run_that_took_the_lock():
    assert decide(Seen(host_run_lock.record(THERE, 10, SINCE), age=11), MINE) == "stale"


@pytest.mark.parametrize(
    ("seen", "says"),
    [
        (
            lock_of(a_run("eve", "boot-2", job="12")),
            f"seen that of eve@control (site.yml, job 12, process 4711) since {SINCE}, last sign of life 10 s ago; "
            "wait until it is done; if it was killed, its lock ends 111 s from now; then run again",
        ),
        (lock_of(HERE), "it runs on this controller: wait until process 4711 has ended"),
        (lock_of(THERE, -500), "last sign of life 0 s ago"),
        (Seen(damage="half a file", age=3), "a lock that cannot be read (half a file), written 3 s ago"),
    ],
)
def test_a_refusal_says_who_since_when_and_what_to_do(seen, says):
    told = host_run_lock.refusal(seen, MINE)
    assert told.startswith("expected no other run on this host, seen ") and says in told


def test_what_is_taken_over_is_named():
    assert host_run_lock.taken_over(lock_of(THERE), "free") == ""
    assert (
        host_run_lock.taken_over(lock_of(HERE), "dead")
        == f"the lock of other@control (site.yml, process 4711) since {SINCE} is taken over: that run has ended"
    )
    assert "last sign of life 500 s ago" in host_run_lock.taken_over(lock_of(THERE, 500), "stale")
    assert "(half a file)" in host_run_lock.taken_over(Seen(damage="half a file", age=500), "stale")


def refused(run, text):
    return {"refused": True, "held": {"run": run} if run else {}, "msg": text}


def test_the_refusals_of_all_hosts_are_one_text_a_run():
    hosts = {f"spark-{n}": refused("other", f"text {n}") for n in range(1, 8)}
    hosts |= {"free": {"refused": False}, "over": {"refused": False, "held": {"run": "x"}}}
    hosts |= {"gone": {}, "torn-1": refused("", "torn"), "torn-2": refused("", "torn")}
    assert host_run_lock.refusals(hosts) == [
        "spark-1, spark-2, spark-3, spark-4, spark-5 and 2 more: text 1",
        "torn-1: torn",
        "torn-2: torn",
    ]
    assert host_run_lock.refusals({name: hosts[name] for name in ("free", "over", "gone")}) == []


@pytest.mark.parametrize(
    ("run", "alive", "age", "over"),
    [
        (HERE, False, 1, True),
        (HERE, True, 9999, False),
        (HERE, None, 119, False),
        (HERE, None, 121, True),
        (THERE, False, 1, False),
        (NOWHERE, False, 1, False),
    ],
)
def test_a_run_of_this_controller_is_judged_by_its_process(monkeypatch, run, alive, age, over):
    monkeypatch.setattr(this_run, "lives", lambda pid, started: (pid, started) == (4711, "81234") and alive)
    seen = lock_of(run, age)
    assert action.ended({"refused": True, "held": seen.record, "age": age}, MINE) is over


def test_no_lock_and_no_record_is_nobody_s_end():
    assert not action.ended({"refused": False}, MINE)
    assert not action.ended({"refused": True, "held": {}, "age": 1}, MINE)


@pytest.mark.parametrize(
    ("stdout", "means"),
    [
        ("Welcome!\r\nsparkfleet-lock:ours\r\n", keeper.DONE),
        ("sparkfleet-lock:lost\n", keeper.LOST),
        ("Welcome!\n", keeper.FAILED),
        ("", keeper.FAILED),
    ],
)
def test_what_a_host_answers_the_keeper(stdout, means):
    assert action.reading(stdout) == means


def test_a_process_is_told_from_another_one_of_its_id():
    own = this_run.started(os.getpid())
    assert own and this_run.lives(os.getpid(), own) is True
    assert this_run.lives(os.getpid(), "1") is False
    child = subprocess.Popen(["sleep", "60"])
    of_child = this_run.started(child.pid)
    assert this_run.lives(child.pid, of_child) is True
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert this_run.lives(child.pid, of_child) is False, "nobody waited for it, but it has ended"
    child.wait()
    assert this_run.lives(child.pid, of_child) is False


def test_a_process_that_is_hidden_is_neither_dead_nor_alive(tmp_path, monkeypatch):
    monkeypatch.setattr(this_run, "identity", lambda: "boot")
    monkeypatch.setattr(this_run, "PROC", tmp_path)
    assert this_run.lives(os.getpid(), "1") is None


@pytest.mark.parametrize(
    ("where", "lasts"), [("boot pid:[4026531836]", True), ("boot pid:[4026534674]", False), ("", True)]
)
def test_in_a_container_nothing_outlives_the_run(monkeypatch, where, lasts):
    monkeypatch.setattr(this_run, "identity", lambda: where)
    assert this_run.lasting() is lasts


def test_where_there_is_no_proc_ps_says_it(tmp_path, monkeypatch):
    monkeypatch.setattr(this_run, "PROC", tmp_path)
    assert this_run.identity() == ""
    ps = tmp_path / "ps"
    ps.write_text('#!/bin/sh\n[ "$*" = "-o lstart= -p 7" ] && echo "Tue Nov 24 04:00:00 2026"\n')
    ps.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert this_run.lives(7, "Tue Nov 24 04:00:00 2026") is True
    assert this_run.lives(8, "Tue Nov 24 04:00:00 2026") is False


def test_an_automation_controller_names_user_and_job():
    run = this_run.this_run({"awx_job_id": 12, "awx_user_name": "alice"})
    assert (run["job"], run["holder"].partition("@")[0]) == ("12", "alice")
    assert run["id"] == this_run.this_run({})["id"]
    assert run["pid"] == os.getpid() and run["started"]


class Host:
    """A host with a state directory, on which the module is run."""

    def __init__(self, folder, capsys):
        self.state, self.capsys = folder / "state", capsys
        self.path = self.state / "run.json"

    def run(self, run=MINE, **arguments):
        check = arguments.pop("check", False)
        given = {"state_dir": str(self.state), "run": run, "_ansible_check_mode": check, **arguments}
        with patch_module_args(given), pytest.raises(SystemExit):
            run_lock.main()
        return json.loads(self.capsys.readouterr().out)

    def age(self, seconds):
        then = time.time() - seconds
        os.utime(self.path, (then, then))

    def holder(self):
        return json.loads(self.path.read_text())["run"] if self.path.exists() else None


@pytest.fixture
def host(tmp_path, capsys):
    return Host(tmp_path, capsys)


@pytest.fixture
def warned(monkeypatch):
    said = []
    monkeypatch.setattr(run_lock.AnsibleModule, "warn", lambda _, text: said.append(text))
    return said


def test_the_first_run_has_the_lock_and_the_second_is_told(host):
    taken = host.run()
    assert (taken["fresh"], taken["changed"], taken["refused"], taken["taken_over"]) == (
        True,
        False,
        False,
        "",
    )
    assert host.path.stat().st_mode & 0o777 == 0o644
    told = host.run(THERE)
    assert told["failed"] and told["refused"] and not told["changed"]
    assert told["held"] == json.loads(host.path.read_text()) and told["held"]["holder"] == "mine@control"
    assert "mine@control" in told["msg"] and told["held"]["since"] in told["msg"]
    assert host.holder() == "mine"


def test_the_same_run_again_is_a_sign_of_life(host):
    host.run()
    content = host.path.read_text()
    host.age(100)
    again = host.run()
    assert (again["fresh"], again["changed"], "held" in again) == (False, False, False)
    assert host.path.read_text() == content and time.time() - host.path.stat().st_mtime < 50


def test_a_dead_run_and_a_silent_one_are_followed(host):
    host.run(THERE)
    assert host.run(dead="somebody else")["refused"]
    assert "that run has ended" in host.run(dead="other")["taken_over"]
    assert host.holder() == "mine"
    host.age(121)
    assert "taken over" in host.run(THERE)["taken_over"]
    assert host.holder() == "other"


def test_a_clock_that_was_set_back_holds_nobody_off_for_ever(host):
    host.run(THERE)
    host.age(-100000)
    assert "last sign of life 0 s ago" in host.run()["msg"]
    assert abs(time.time() - host.path.stat().st_mtime) < 50
    host.age(121)
    assert host.run()["fresh"]


def lock_with(**over):
    whole = {"version": 1, "run": "r", "holder": "h", "controller": "c", "since": "s", "pid": 1, "lease": 120}
    return json.dumps({**whole, **over})


@pytest.mark.parametrize(
    "torn",
    [
        "",
        "{half",
        "[]",
        '{"version": 2}',
        '{"version": 1, "run": 3}',
        "\udcff",
        "[" * 100_000,
        lock_with(playbook=5),
        lock_with(job=[]),
    ],
)
def test_a_damaged_lock_holds_as_long_as_any(host, torn):
    host.state.mkdir()
    host.path.write_bytes(torn.encode(errors="surrogateescape"))
    told = host.run()
    assert told["refused"] and told["held"] == {} and "cannot be read" in told["msg"]
    host.age(121)
    assert "cannot be read" in host.run()["taken_over"]
    assert host.holder() == "mine"


def test_only_the_holder_gives_back(host):
    assert not host.run(state="released").get("failed")
    assert not host.state.exists()
    host.run()
    assert not host.run(THERE, state="released").get("failed")
    assert host.holder() == "mine"
    host.run(state="released")
    assert host.holder() is None


def test_a_check_takes_nothing_and_warns(host, warned):
    assert not host.run(check=True)["fresh"]
    assert not host.state.exists()
    host.run(THERE)
    before = host.path.stat().st_mtime_ns
    told = host.run(check=True)
    assert not told.get("failed") and not told["refused"] and host.path.stat().st_mtime_ns == before
    (warning,) = warned
    assert "other@control" in warning
    host.age(121)
    assert host.run(check=True)["taken_over"] == "" and host.holder() == "other"
    host.run(check=True, dead="other")
    assert len(warned) == 1
    assert not host.run(check=True, state="released")["fresh"] and host.holder() == "other"


def test_whoever_is_at_the_lock_is_waited_for_and_not_for_ever(host, monkeypatch):
    monkeypatch.setattr(lock_file, "PATIENCE", 0.1)
    host.state.mkdir()
    with (host.state / "run.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        told = host.run()
    assert told["failed"] and "expected a lock in" in told["msg"] and "refused" not in told
    assert host.run()["fresh"]


def test_a_directory_that_cannot_be_made_is_no_refusal(host):
    host.state.write_text("a file")
    told = host.run()
    assert told["failed"] and "run with become" in told["msg"] and "refused" not in told


@pytest.mark.parametrize(
    ("arguments", "says"), [({"lease": 0}, "lease: expected"), ({"run": None}, "run: expected")]
)
def test_what_cannot_be_is_refused(host, arguments, says):
    run = arguments.pop("run", MINE)
    assert says in host.run(run, **arguments)["msg"]
    assert not host.state.exists()


# -- what works under the lock


WORK = """
import sys, time
sys.path[:0] = {paths!r}
from ansible_collections.sparkfleet.vllm.plugins.module_utils._run import lock_file
class Module:
    check_mode = {check}
    def fail_json(self, **result):
        print(result["msg"], flush=True)
        raise SystemExit(1)
lock_file.hold(Module())
print("works", flush=True)
time.sleep(60)
"""


class Worker:
    """A module that changes the host, for the run of this name; `said` is what it says of the lock."""

    def __init__(self, host, run="mine", check=False):
        asked = {"SPARKFLEET_RUN": json.dumps({"run": run, "directory": str(host.state)})} if run else {}
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORK.format(paths=sys.path, check=check)],
            env=os.environ | asked,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline().strip()

    def end(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def worker(host):
    made = []

    def make(*arguments, **options):
        made.append(Worker(host, *arguments, **options))
        return made[-1]

    yield make
    for each in made:
        each.end()


@pytest.fixture
def hurry(monkeypatch):
    monkeypatch.setattr(lock_file, "ENDS_WITHIN", 0.3)


def test_what_works_under_the_lock_gives_a_sign_of_life_as_it_begins(host, worker):
    host.run()
    host.age(100)
    assert worker().said == "works"
    assert time.time() - host.path.stat().st_mtime < 50


def test_a_run_that_lost_the_lock_begins_nothing_more(host, worker):
    """It was out of reach for longer than the lease, another took over, and both are back."""
    host.run()
    host.age(121)
    host.run(THERE)
    said = worker().said
    assert said.startswith("expected the lock of this run on this host, seen that of other@control (site.yml")
    host.run(THERE, state="released")
    assert "seen none" in worker().said, "also when the other one is done: it may have changed anything"
    host.path.write_text("{half")
    assert "seen one that cannot be read" in worker().said


def test_nothing_is_taken_over_while_something_works_on(host, worker, hurry):
    host.run()
    at_work = worker()
    host.age(121)
    told = host.run(THERE)
    assert told["refused"] and told["failed"] and not told["changed"]
    assert (
        "seen a task of that of mine@control (site.yml, process 4711)" in told["msg"]
        and "fuser run.work" in told["msg"]
    )
    assert host.holder() is None, "nobody has it: the one before has lost it as well"
    assert "seen none" in worker().said
    assert host.run(THERE)["refused"], "nor is a lock taken that nobody has"
    at_work.end()
    assert host.run(THERE)["fresh"]


def test_what_ends_in_time_is_waited_for(host, worker):
    host.run()
    at_work = worker()
    threading.Timer(1.0, at_work.process.kill).start()
    assert "that run has ended" in host.run(HERE, dead="mine")["taken_over"]
    assert at_work.process.wait(5) == -signal.SIGKILL


def test_two_of_one_run_work_at_the_same_time_and_it_may_look_at_its_lock(host, worker):
    host.run()
    assert [worker().said, worker().said] == ["works", "works"]
    assert not host.run()["refused"]
    assert not host.run(state="held").get("failed")


def test_without_a_lock_and_in_a_check_nothing_is_asked_for(host, worker):
    assert worker(run="").said == "works"
    assert worker(check=True).said == "works"
    assert not host.state.exists()


def test_a_lock_that_cannot_be_read_is_no_lock(host, worker):
    host.state.write_text("no directory")
    assert "expected the lock of this run in" in worker().said


def test_held_is_said_of_a_lock_that_is_there(host):
    host.run()
    host.age(100)
    assert "failed" not in host.run(state="held")
    assert time.time() - host.path.stat().st_mtime < 50
    host.run(THERE, dead="mine")
    told = host.run(state="held")
    assert told["failed"] and told["lost"] and not told["refused"] and "other@control" in told["msg"]
    assert host.holder() == "other"


def test_a_sign_of_life_is_as_old_as_what_was_heard(host, monkeypatch):
    host.run()
    host.age(100)
    monkeypatch.setenv("SPARKFLEET_RUN", json.dumps({"run": "mine", "directory": str(host.state)}))
    tenure = lock_file.Tenure()
    for heard, age in ((200, 100), (50, 50), (70, 50)):
        tenure.renew(time.time() - heard)
        assert abs(time.time() - host.path.stat().st_mtime - age) < 5
    assert tenure.lost() == ""
    host.run(THERE, dead="mine")
    then = host.path.stat().st_mtime_ns
    tenure.renew(time.time() + 5)
    assert host.path.stat().st_mtime_ns == then and "seen that of other@control" in tenure.lost()


def test_without_a_lock_there_is_nothing_to_lose(monkeypatch):
    monkeypatch.delenv("SPARKFLEET_RUN", raising=False)
    tenure = lock_file.Tenure()
    tenure.renew(time.time())
    assert tenure.lost() == ""


READS = {
    "bundle_info", "fabric_measure", "hf_snapshot_info", "model_pair", "registry_info", "gateway_drift", "serve_drift", "serve_idle", "serve_info", "spark_info", "spark_status", "prometheus_day", "run_lock", "unit_look",
    # on the controller alone
    "recipe_lock",
}  # fmt: skip


def test_every_module_that_changes_a_host_does_so_under_the_lock_of_its_run():
    routed = yaml.safe_load((ROOT / "meta/runtime.yml").read_text())["plugin_routing"]["modules"]
    for path in sorted((ROOT / "plugins/modules").glob("*.py")):
        text = path.read_text()
        if "AnsibleModule(" not in text or path.stem in READS:
            assert path.stem not in routed and "hold(module)" not in text, path.stem
            continue
        assert "    hold(module)\n" in text, path.stem
        own = (ROOT / "plugins/action" / path.name).exists()
        assert own != (path.stem in routed), path.stem
        front = path.stem if own else routed[path.stem]["action_plugin"].removeprefix("sparkfleet.vllm.")
        plugin = importlib.import_module(f"{action.__package__}.{front}")
        assert issubclass(plugin.ActionModule, under_lock.UnderLock), path.stem
