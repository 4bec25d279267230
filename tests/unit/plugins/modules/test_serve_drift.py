"""What the module sees with its own eyes: a server, what is mounted."""

from __future__ import annotations

import json

from ansible_collections.sparkfleet.vllm.plugins.module_utils._gate.container import State
from ansible_collections.sparkfleet.vllm.plugins.module_utils._vllm import client
from ansible_collections.sparkfleet.vllm.plugins.modules import serve_drift
from ansible_collections.sparkfleet.vllm.plugins.modules.serve_drift import ask, mounted, recorded
from helpers.stub_server import serving


def test_a_server_is_asked_and_does_not_have_to_work():
    with serving(name="m", cache={"cache_dtype": "fp8"}) as (played, address):
        answers = ask(client.Server(address))
        assert (answers.healthy, answers.models, answers.cache) == (True, ["m"], {"cache_dtype": "fp8"})
        assert answers.counters is not None and answers.counters.drafts == 0
        assert played._completions == 0


def test_a_server_that_wants_a_key_still_shows_its_figures():
    with serving(api_key="k") as (_, address):
        answers = ask(client.Server(address))
    assert answers.models is None and "401" in answers.problem
    assert answers.counters is not None


def test_the_watchdog_as_it_is_there(tmp_path, monkeypatch):
    """Nothing of it, and then a unit of somebody else's making, with a verdict."""
    monkeypatch.setattr(serve_drift.unit, "UNITS", tmp_path / "units")
    monkeypatch.setattr(serve_drift.install, "PROGRAMS", tmp_path / "programs")
    plan = serve_drift.watchdog_plan.given({"mode": "observe", "state_dir": str(tmp_path / "state")})
    seen = serve_drift.look_watchdog(plan, 7.0)
    assert (seen.verdict, seen.state) == (None, serve_drift.install.State())
    assert "No such file" in seen.problem
    (tmp_path / "units").mkdir()
    (tmp_path / "units/sparkfleet-watchdog.timer").write_text("[Timer]")
    (tmp_path / "state/watchdog").mkdir(parents=True)
    verdict = {
        "version": 1, "looked_at": 5, "mode": "act", "verdict": "well", "reason": "idle", "findings": [], "speculation": None,
        "restarts": [], "agent": "up",
    }  # fmt: skip
    (tmp_path / "state/watchdog/verdict.json").write_text(json.dumps(verdict))
    seen = serve_drift.look_watchdog(plan, 7.0)
    assert (seen.verdict, seen.problem, seen.now) == (verdict, "", 7.0)
    assert seen.state.units == {"sparkfleet-watchdog.timer": "[Timer]"}


def test_no_server():
    assert not ask(client.Server("http://127.0.0.1:9")).healthy


def test_a_mount_of_another_directory_is_told_elsewhere():
    state = State(
        "c",
        "running",
        "1970-01-01T00:00:00Z",
        pid=7,
        mounts={"/models/b": "/srv/b", "/models/d": "/elsewhere", "/config/x": "/srv/x"},
    )
    models = {
        "body": {"path": "/srv/b", "mount": "/models/b"},
        "draft": {"path": "/srv/d", "mount": "/models/d"},
        "gone": {"path": "/srv/e", "mount": "/models/e"},
    }
    mounts = [{"path": "/srv/x", "mount": "/config/x"}, {"path": "/srv/y", "mount": "/config/y"}]
    assert mounted(state, {"models": models}) == {"/models/b": "/srv/b"}, (
        "a record of before had no other mounts"
    )
    assert mounted(state, {"models": models, "mounts": mounts}) == {
        "/models/b": "/srv/b",
        "/config/x": "/srv/x",
    }


def test_the_record_and_why_it_cannot_be_read(tmp_path):
    assert recorded(str(tmp_path)) == (None, "")
    (tmp_path / "state.json").write_text('{"version": 7}')
    state, problem = recorded(str(tmp_path))
    assert state is None and "version 7" in problem
