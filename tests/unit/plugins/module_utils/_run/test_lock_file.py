"""Who holds a host, for somebody who only looks. Who may take it is in modules/test_run_lock.py."""

from __future__ import annotations

import json
import os

from ansible_collections.sparkfleet.vllm.plugins.module_utils._run.lock_file import look_alive

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
