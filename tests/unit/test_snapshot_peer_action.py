"""The controller's side of a peer: what it asks a host, says meanwhile, and makes of the answers."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from ansible_collections.sparkfleet.vllm.plugins.action import snapshot_peer as action
from ansible_collections.sparkfleet.vllm.plugins.modules import snapshot_peer as module
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils import _progress

RUNS, ENDED = "sparkfleet-peer:runs\n", "sparkfleet-peer:\n"


def status(state="working", text="1 of 2", snapshots=(), problem=""):
    return json.dumps({"state": state, "text": text, "snapshots": list(snapshots), "problem": problem})


class Front(action.ActionModule):
    """A host that gives the answers in turn, the last one again and again."""

    def __init__(self, *answers, check=False, **arguments):
        args = {"state": "finished", "store": "/a store", **arguments}
        self._task = SimpleNamespace(args=args, check_mode=check, delegate_to=None)
        self._connection = SimpleNamespace(
            _shell=SimpleNamespace(join_path=lambda *parts: "/".join(parts), quote=lambda text: f"'{text}'")
        )
        self.answers, self.commands = list(answers), []

    def _low_level_execute_command(self, command):
        self.commands.append(command)
        return {"stdout": self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]}

    def _execute_module(self, name, args=None, task_vars=None):
        return {"module": name}


@pytest.fixture
def finish(monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(action.UnderLock, "run", lambda *_: {})
    monkeypatch.setattr(_progress, "FIRST_POLL", 0.0)
    monkeypatch.setattr(action, "Display", lambda: SimpleNamespace(display=said.append))

    def run(*answers, **options):
        front = Front(*answers, **options)
        result = front.run(task_vars={"inventory_hostname": "spark-3", "ansible_play_batch": ["a"] * 3})
        return SimpleNamespace(result=result, said=list(said), commands=front.commands)

    return run


def test_it_waits_until_the_host_is_whole_and_says_how_far_it_is(finish):
    brought = [{"commit": "c", "state": "fetched"}]
    done = finish(RUNS + status(), RUNS + status(), RUNS + status("whole", "2 of 2", brought))
    assert (done.result["settled"], done.result["changed"], done.result["problem"]) == (True, True, "")
    assert done.said == ["spark-3: 1 of 2", "spark-3: 2 of 2"]
    assert len(done.commands) == 3 and "'/a store/models/.peer/status.json'" in done.commands[0]


def test_a_host_that_had_everything_is_not_changed(finish):
    whole = RUNS + status("whole", "", [{"commit": "c", "state": "present"}])
    assert finish(whole).result["changed"] is False


def test_a_peer_that_gives_up_is_no_failure_and_says_why(finish):
    result = finish(RUNS + status("failed", "no room", problem="expected 3 GB, seen 1")).result
    assert not result.get("failed")
    assert (result["settled"], result["problem"]) == (False, "expected 3 GB, seen 1")


def test_what_it_said_before_it_ended_counts(finish):
    assert finish(ENDED + status("whole")).result["settled"] is True


@pytest.mark.parametrize("left", [status(), "", "{half", "[]"])
def test_a_peer_that_was_killed_is_found_out(finish, left):
    result = finish(RUNS + status(), ENDED + left).result
    assert result["settled"] is False and "seen that it has ended" in result["problem"]


def test_noise_of_a_login_shell_is_no_answer(finish):
    assert finish("Welcome!\r\n", "Welcome!\r\n" + RUNS.replace("\n", "\r\n") + status("whole")).result[
        "settled"
    ]


def test_the_time_limit_ends_the_waiting(finish, monkeypatch):
    monkeypatch.setattr(action, "GRACE", -1.0)
    result = finish(RUNS + status(), timeout=1).result
    assert result["settled"] is False and "within its time limit" in result["problem"]


def test_a_larger_fleet_says_less_often(finish, monkeypatch):
    paces: list[int] = []

    def pace(hosts: int) -> float:
        paces.append(hosts)
        return 0.0

    monkeypatch.setattr(action, "pace", pace)
    answers = [status(text="1"), status(text="1"), status(text="2"), status("whole", "3")]
    assert len(finish(*(RUNS + answer for answer in answers)).said) == 3
    assert paces == [3]


@pytest.mark.parametrize("options", [{"check": True}, {"state": "started"}, {"state": "stopped"}])
def test_the_module_itself_does_the_rest(finish, options):
    done = finish("", **options)
    assert done.result == {"module": "sparkfleet.vllm.snapshot_peer"} and not done.commands


def test_the_default_limits_are_the_documented_ones():
    spec = module.ARGUMENT_SPEC
    assert (spec["timeout"]["default"], spec["idle"]["default"]) == (action.TIMEOUT, action.IDLE)
