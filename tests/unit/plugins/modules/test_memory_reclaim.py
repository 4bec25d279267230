from __future__ import annotations

import json

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.sparkfleet.vllm.plugins.modules import memory_reclaim

KIB = 1024


class Container:
    """As much of docker's as the module uses; stopping it frees its memory."""

    def __init__(self, proc, status="running", auto_remove=False, **config):
        self.name, self.status, self.proc, self.calls = "vllm", status, proc, []
        self.attrs = {"State": {"Pid": 7}, "HostConfig": {"AutoRemove": auto_remove}, "Config": config}

    def stop(self, timeout):
        self.calls.append("stop")
        self.timeout = timeout
        (self.proc / "meminfo").write_text("MemTotal: 1000 kB\nMemAvailable: 700 kB\n")

    def wait(self, condition):
        self.calls.append(condition)


@pytest.fixture
def proc(tmp_path, monkeypatch):
    """1000 kB, of which the old server holds 600 and another process 200."""
    (tmp_path / "meminfo").write_text("MemTotal: 1000 kB\nMemAvailable: 100 kB\n")
    for pid, group, size in ((7, "0::/docker/4f1c\n", 600), (9, "0::/other\n", 200)):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "cgroup").write_text(group)
        (tmp_path / str(pid) / "smaps_rollup").write_text(f"Pss_Anon: {size} kB\n")
    (tmp_path / "sys/vm").mkdir(parents=True)
    (tmp_path / "sys/vm/drop_caches").write_text("untouched")
    monkeypatch.setattr(memory_reclaim, "PROC", tmp_path)
    monkeypatch.setattr(memory_reclaim.unit, "UNITS", tmp_path)
    return tmp_path


@pytest.fixture
def call(proc, monkeypatch, capsys):
    def run(container, check=False, **arguments):
        class Client:
            class containers:
                @staticmethod
                def get(name):
                    if container is None:
                        raise memory_reclaim.docker.errors.NotFound("no such container")
                    return container

        monkeypatch.setattr(memory_reclaim.docker, "from_env", lambda timeout: Client)
        given = {"container": "vllm", "timeout": 0, "_ansible_check_mode": check, **arguments}
        capsys.readouterr()
        with patch_module_args(given), pytest.raises(SystemExit):
            memory_reclaim.main()
        return json.loads(capsys.readouterr().out)

    return run


@pytest.mark.parametrize("needed", [801 * KIB, 1001 * KIB])
def test_a_hopeless_start_is_refused_before_the_old_server_is_stopped(call, proc, needed):
    container = Container(proc)
    result = call(container, minimum_bytes=needed)
    assert result["failed"] and not result["changed"]
    assert "nothing was stopped" in result["msg"]
    assert container.calls == []
    assert (proc / "sys/vm/drop_caches").read_text() == "untouched"


def test_what_huge_pages_hold_is_no_room(call, proc):
    with (proc / "meminfo").open("a") as file:
        file.write("Hugetlb: 300 kB\n")
    container = Container(proc)
    result = call(container, minimum_bytes=501 * KIB)
    assert result["failed"] and "nothing was stopped" in result["msg"] and container.calls == []
    assert not call(container, minimum_bytes=500 * KIB).get("failed")


def test_room_is_made_by_stopping_the_old_server(call, proc):
    container = Container(proc)
    result = call(container, fraction=0.7)
    assert result["changed"] and result["stopped"] and result["made"]
    assert container.calls == ["stop"]
    assert (proc / "sys/vm/drop_caches").read_text() == "3"


def test_room_that_others_hold_unseen_shows_after_the_stop(call, proc):
    result = call(Container(proc), minimum_bytes=750 * KIB)
    assert result["failed"] and result["stopped"]
    assert "gpu-memory-utilization" in result["msg"]


def test_a_server_that_the_engine_removes_has_gone_before_another_is_made(call, proc):
    container = Container(proc, auto_remove=True)
    call(container, fraction=0.1)
    assert container.calls == ["stop", "removed"]


@pytest.mark.parametrize(
    ("created", "waited"), [({}, 30), ({"StopTimeout": 150}, 150), ({"StopTimeout": 5}, 30)]
)
def test_the_old_server_has_the_time_to_stop_that_it_was_created_with(call, proc, created, waited):
    container = Container(proc, **created)
    call(container, fraction=0.7)
    assert container.timeout == waited


@pytest.mark.parametrize(("status", "stopped"), [("paused", True), ("restarting", True), ("exited", False)])
def test_whatever_holds_memory_or_soon_will_is_stopped(call, proc, status, stopped):
    assert call(Container(proc, status), fraction=0.05)["stopped"] is stopped


def test_check_mode_touches_nothing(call, proc):
    container = Container(proc)
    result = call(container, check=True, fraction=0.7)
    assert result["changed"] and not result["made"]
    assert container.calls == []
    assert (proc / "sys/vm/drop_caches").read_text() == "untouched"


def test_no_old_server(call, proc):
    assert not call(None, fraction=0.05)["changed"]


@pytest.mark.parametrize("status", ["running", "exited"])
def test_the_unit_is_stopped_first_also_where_it_is_about_to_start_a_server_that_died(
    call, proc, monkeypatch, status
):
    container = Container(proc, status)
    (proc / "vllm.service").write_text("")
    monkeypatch.setattr(
        memory_reclaim.unit, "run_command", lambda argv, timeout: container.calls.append(" ".join(argv))
    )
    call(container, check=True, fraction=0.05)
    assert container.calls == []
    call(container, fraction=0.05)
    assert container.calls == ["systemctl stop vllm.service", "stop"][: 1 + (status == "running")]


def test_a_unit_that_does_not_stop_stops_the_run(call, proc, monkeypatch):
    def fail(argv, timeout):
        raise memory_reclaim.ProbeError("systemctl exited 1: no bus")

    (proc / "vllm.service").write_text("")
    monkeypatch.setattr(memory_reclaim.unit, "run_command", fail)
    container = Container(proc)
    result = call(container, fraction=0.05)
    assert result["failed"] and "no bus" in result["msg"] and container.calls == []
