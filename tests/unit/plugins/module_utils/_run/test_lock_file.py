"""Who holds a host, for somebody who only looks, and for work of no run. Who may take it is in modules/test_run_lock.py."""

from __future__ import annotations

import fcntl
import json
import os
import time

from ansible_collections.sparkfleet.vllm.plugins.module_utils._run import lock_file, run_lock
from ansible_collections.sparkfleet.vllm.plugins.module_utils._run.lock_file import LockFile, look_alive

RUN = {"version": 1, "run": "1", "holder": "me@c", "controller": "", "since": "now", "pid": 1, "lease": 120}


def test_a_run_at_work_and_one_that_is_no_more(tmp_path):
    path = tmp_path / "run.json"
    assert look_alive(tmp_path, 1000.0) is None
    path.write_text(json.dumps(RUN))
    os.utime(path, (900.0, 900.0))
    assert look_alive(tmp_path, 1000.0) == {"holder": "me@c", "playbook": None, "since": "now"}
    assert look_alive(tmp_path, 1021.0) is None
    path.write_text("{")
    assert look_alive(tmp_path, path.stat().st_mtime) is None


def held(tmp_path, age, **given):
    path = tmp_path / "run.json"
    path.write_text(json.dumps(RUN | given))
    os.utime(path, (time.time() - age,) * 2)


def test_work_between_runs_keeps_a_run_that_begins_waiting_and_stays_out_of_one_at_work(
    tmp_path, monkeypatch
):
    lock = LockFile(tmp_path)
    run = {"id": "2", "holder": "me@c", "controller": "", "pid": 1}
    monkeypatch.setattr(lock_file, "ENDS_WITHIN", 0.1)
    with lock.between_runs() as free:
        assert free
        assert lock.take(run, 120, "")[1] == run_lock.BUSY
        with lock.between_runs() as second:
            assert not second
    assert lock.take(run, 120, "")[1] == run_lock.FREE
    with lock.between_runs() as free:
        assert not free


def test_a_lock_whose_lease_ended_keeps_nothing_out_but_its_work_does(tmp_path):
    lock = LockFile(tmp_path)
    held(tmp_path, 119)
    with lock.between_runs() as free:
        assert not free
    held(tmp_path, 121)
    with lock.between_runs() as free:
        assert free
    held(tmp_path, -3600)
    with lock.between_runs() as free:
        assert not free
    held(tmp_path, 121)
    with (tmp_path / "run.work").open("w") as work:
        fcntl.flock(work, fcntl.LOCK_SH)
        with lock.between_runs() as free:
            assert not free


def test_a_damaged_lock_keeps_others_out_for_a_while(tmp_path):
    path = tmp_path / "run.json"
    path.write_text("{")
    with LockFile(tmp_path).between_runs() as free:
        assert not free
    os.utime(path, (1, 1))
    with LockFile(tmp_path).between_runs() as free:
        assert free


def test_who_holds_a_host_for_a_person():
    seen = run_lock.Seen(RUN | {"playbook": "site.yml"})
    assert run_lock.holder(seen) == "me@c (site.yml, process 1)"
    assert run_lock.holder(run_lock.Seen(damage="no JSON")) == "a lock that cannot be read (no JSON)"
