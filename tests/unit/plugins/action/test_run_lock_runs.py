"""Runs at once, killed in every way: ansible-playbook with local connections, the controller and its hosts on one machine."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from helpers.playbook import PROGRAM, environment
from helpers.recipe import ROOT

PLAY = f"""
- hosts: all
  gather_facts: false
  tasks:
    - include_tasks: {ROOT}/roles/run_lock/tasks/main.yml
    - name: Touch the host
      command: touch "{{{{ run_lock_state_dir }}}}/touched-by-{{{{ who }}}}"
- hosts: all
  gather_facts: false
  tasks:
    - sparkfleet.vllm.run_lock: {{state_dir: "{{{{ run_lock_state_dir }}}}"}}
    - name: Work
      shell: touch "{{{{ run_lock_state_dir }}}}/works"; until [ -e "{{{{ go }}}}" ]; do sleep 0.1; done
"""


def until(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)


def processes(text):
    """{process: its parent} of those with `text` in their command line."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            argv, stat = (path / "cmdline").read_bytes(), (path / "stat").read_text()
        except OSError:
            continue
        if text.encode() in argv:
            found[int(path.name)] = int(stat.rpartition(")")[2].split()[1])
    return found


class Fleet:
    """Hosts that are directories of this machine, and one that is switched off."""

    def __init__(self, folder):
        self.folder, self.go = folder, folder / "go"
        self.running = []
        self.playbook = folder / "work.yml"
        self.playbook.write_text(PLAY)
        self.inventory = folder / "hosts.yml"
        hosts = {name: {"ansible_connection": "local"} for name in ("spark-a", "spark-b")}
        ssh = folder / "ssh"
        ssh.write_text("#!/bin/sh\nexit 255\n")
        ssh.chmod(0o755)
        hosts["spark-off"] = {"ansible_host": "192.0.2.1", "ansible_ssh_executable": str(ssh)}
        shared = {
            "run_lock_state_dir": f"{folder}/{{{{ inventory_hostname }}}}",
            "ansible_python_interpreter": sys.executable,
            "go": str(self.go),
        }
        self.inventory.write_text(yaml.safe_dump({"all": {"hosts": hosts, "vars": shared}}))

    def start(self, who, *arguments):
        run = subprocess.Popen(
            [PROGRAM, "-i", self.inventory, self.playbook, "-e", f"who={who}", *arguments],
            cwd=self.folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )  # fmt: skip
        self.running.append(run)
        return run

    def run(self, who, *arguments):
        """A run from beginning to end, and what it said in one line."""
        run = self.start(who, *arguments)
        told, _ = run.communicate(timeout=120)
        return run.returncode, " ".join(told.split())

    def at_work(self, who, *arguments, host="spark-a"):
        run = self.start(who, *arguments)
        until(lambda: (self.folder / host / "works").exists() or run.poll() is not None)
        assert run.poll() is None, run.communicate()[0]
        return run

    def lock(self, host="spark-a"):
        return self.folder / host / "run.json"

    def keepers(self):
        """What belongs to a run and is no child of it."""
        found = processes(str(self.playbook))
        runs = {run.pid for run in self.running}
        return [pid for pid, parent in found.items() if pid not in runs and parent not in {*found, *runs}]

    def touched(self, who):
        return sorted(path.parent.name for path in self.folder.glob(f"*/touched-by-{who}"))

    def kill_all(self):
        # Stopped first: none must see another one end, and tidy up after it.
        for number in (signal.SIGSTOP, signal.SIGKILL) * 3:
            for pid in processes(str(self.folder)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            time.sleep(0.05)


@pytest.fixture
def fleet(tmp_path):
    fleet = Fleet(tmp_path)
    yield fleet
    fleet.go.touch()
    fleet.kill_all()
    for run in fleet.running:
        run.communicate()


def test_the_second_run_leaves_before_it_touches_anything(fleet):
    first = fleet.at_work("first", "--limit", "spark-a,spark-off")
    assert fleet.touched("first") == ["spark-a"], "a host that is switched off stops nobody"
    held = json.loads(fleet.lock().read_text())
    status, told = fleet.run("second")
    assert status != 0 and fleet.touched("second") == []
    assert "unreachable=1" in told.partition("spark-off : ok=")[2]
    who = f"seen that of {held['holder']} (work.yml, process {first.pid}) since {held['since']}"
    for host in ("spark-a", "spark-b"):
        said = told.partition(f"fatal: [{host}]: FAILED! =>")[2].partition("fatal:")[0]
        assert "spark-a: expected no other run" in said and who in said
    until(lambda: not fleet.lock("spark-b").exists())
    assert json.loads(fleet.lock().read_text()) == held
    fleet.go.touch()
    first.communicate(timeout=60)
    until(lambda: not fleet.lock().exists())
    until(lambda: not fleet.keepers())
    assert fleet.run("third", "--limit", "spark-a,spark-b")[0] == 0
    until(lambda: not fleet.keepers())


@pytest.mark.parametrize(
    "end", [lambda run: run.kill(), lambda run: os.killpg(run.pid, signal.SIGINT)], ids=["kill", "Ctrl-C"]
)
def test_a_run_that_was_ended_is_tidied_up_by_its_one_keeper_which_held_nothing_open(fleet, end):
    first = fleet.at_work("first", "--limit", "spark-a")
    (keeper,) = fleet.keepers()
    files = {os.readlink(path) for path in Path(f"/proc/{keeper}/fd").iterdir()}
    assert files == {"/dev/null", "anon_inode:[pidfd]"}
    assert os.getsid(keeper) == os.getpgid(keeper) != os.getsid(first.pid)
    end(first)
    until(lambda: not fleet.lock().exists())
    until(lambda: keeper not in processes(""))


def test_the_run_after_one_that_was_killed_with_all_it_had_started_goes_on_at_once(fleet):
    first = fleet.at_work("first", "--limit", "spark-a")
    fleet.kill_all()
    held = json.loads(fleet.lock().read_text())
    fleet.go.touch()
    status, told = fleet.run("second", "--limit", "spark-a")
    assert status == 0 and fleet.touched("second") == ["spark-a"]
    who = f"spark-a: the lock of {held['holder']} (work.yml, process {first.pid}) since {held['since']}"
    assert f"{who} is taken over: that run has ended" in told
    until(lambda: not fleet.keepers())


def test_a_run_of_another_controller_is_judged_by_its_lease(fleet):
    fleet.lock().parent.mkdir()
    foreign = {"run": "x", "holder": "alice@elsewhere", "controller": "there", "pid": 1, "started": "1", "playbook": "site.yml",
               "job": "12", "version": 1, "lease": 120, "since": "2026-11-24T04:00:00Z"}  # fmt: skip
    fleet.lock().write_text(json.dumps(foreign))
    fleet.go.touch()
    status, told = fleet.run("second", "--limit", "spark-a")
    assert status != 0 and fleet.touched("second") == []
    assert "alice@elsewhere (site.yml, job 12, process 1) since 2026-11-24T04:00:00Z" in told
    status, told = fleet.run("check", "--limit", "spark-a", "--check")
    assert "[WARNING]" in told and "alice@elsewhere" in told
    assert json.loads(fleet.lock().read_text()) == foreign
    subprocess.run(["touch", "-d", "121 seconds ago", fleet.lock()], check=True)
    status, told = fleet.run("third", "--limit", "spark-a")
    assert status == 0 and "the lock of alice@elsewhere" in told
    assert re.search(r"taken over: last sign of life 1[2-9]\d s ago", told)
    until(lambda: not fleet.keepers())


def test_it_gives_signs_of_life_and_leaves_a_lock_that_is_no_longer_its_own(fleet):
    fleet.playbook.write_text(
        "- hosts: all\n  gather_facts: false\n  tasks:\n"
        '    - sparkfleet.vllm.run_lock: {state_dir: "{{ run_lock_state_dir }}", lease: 2}\n'
        '    - shell: touch "{{ run_lock_state_dir }}/works"; until [ -e "{{ go }}" ]; do sleep 0.1; done\n'
    )
    first = fleet.at_work("first", "--limit", "spark-a")
    before = fleet.lock().stat().st_mtime
    until(lambda: fleet.lock().stat().st_mtime > before)
    other = json.loads(fleet.lock().read_text()) | {"run": "another"}
    fleet.lock().write_text(json.dumps(other))
    until(lambda: not fleet.keepers())
    fleet.go.touch()
    first.communicate(timeout=60)
    assert first.returncode == 0 and json.loads(fleet.lock().read_text()) == other


def test_a_host_that_cannot_be_locked_fails_alone(fleet):
    fleet.lock().parent.write_text("no directory")
    fleet.go.touch()
    status, told = fleet.run("first", "--limit", "spark-a,spark-b")
    assert status == 2 and fleet.touched("first") == ["spark-b"]
    assert "run with become" in told
    until(lambda: not fleet.keepers())


FENCED = """
- hosts: all
  gather_facts: false
  tasks:
    - include_tasks: {root}/roles/run_lock/tasks/main.yml
    - name: Work
      shell: touch "{{{{ run_lock_state_dir }}}}/works"; until [ -e "{{{{ go }}}}" ]; do sleep 0.1; done
    - block:
        - name: One of ours
          sparkfleet.vllm.serve_state: &state
            {{path: "{{{{ run_lock_state_dir }}}}/state.json", serving: {{"recipe": "{{{{ who }}}}"}}, evidence: {{}}}}
      rescue:
        - name: What a rescue would do
          sparkfleet.vllm.serve_state: *state
      always:
        - name: Before one of Ansible's own
          sparkfleet.vllm.run_lock: {{state: held}}
        - name: One of Ansible's own
          copy: {{content: "{{{{ who }}}}", dest: "{{{{ run_lock_state_dir }}}}/owner"}}
- hosts: all
  gather_facts: false
  tasks:
    - name: Take it once more
      sparkfleet.vllm.run_lock: {{state_dir: "{{{{ run_lock_state_dir }}}}"}}
"""


def test_a_run_that_was_cut_off_and_comes_back_changes_nothing_any_more(fleet):
    """Longer than its lease, and another run from another controller has taken over and is done."""
    fleet.playbook.write_text(FENCED.format(root=ROOT))
    first = fleet.at_work("first", "--limit", "spark-a")
    stopped = processes(str(fleet.playbook))
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    # A run of this controller would be judged by its process.
    fleet.lock().write_text(json.dumps(json.loads(fleet.lock().read_text()) | {"controller": "elsewhere"}))
    subprocess.run(["touch", "-d", "121 seconds ago", fleet.lock()], check=True)
    fleet.go.touch()
    status, told = fleet.run("second", "--limit", "spark-a")
    assert status == 0 and "is taken over: last sign of life" in told
    state, owner = (fleet.folder / "spark-a" / name for name in ("state.json", "owner"))
    assert json.loads(state.read_text())["current"]["serving"] == {"recipe": "second"}
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)
    told, _ = first.communicate(timeout=120)
    told = " ".join(told.split())
    assert first.returncode != 0 and told.count("fatal: [spark-a]: FAILED!") == 3
    assert "expected the lock of this run on this host, seen none" in told
    assert json.loads(state.read_text())["current"]["serving"] == {"recipe": "second"}
    assert owner.read_text() == "second"


def test_a_run_that_has_the_lock_changes_its_hosts(fleet):
    fleet.playbook.write_text(FENCED.format(root=ROOT))
    fleet.go.touch()
    status, told = fleet.run("first", "--limit", "spark-a")
    assert status == 0 and (fleet.folder / "spark-a/owner").read_text() == "first"
    assert "failed=0" in told and "rescued=0" in told
