"""A module in the background as Ansible itself runs it: ansible-playbook, a local connection, with and without pipelining."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.recipe import ROOT

ACTION = """
from ansible.plugins.action import ActionBase
from ansible_collections.sparkfleet.vllm.plugins.module_utils._run import detached
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.background import run_with_progress

detached.WATCH = 0.5

class ActionModule(ActionBase):
    _supports_check_mode = True

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        return run_with_progress(self, "slow", self._task.args, task_vars, 60)
"""
MODULE = """#!/usr/bin/python
import os, time
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sparkfleet.vllm.plugins.module_utils._run import detached
from ansible_collections.sparkfleet.vllm.plugins.module_utils._common.progress import Progress

detached.WATCH, detached.LEASE = float(os.environ.get("LAB_WATCH", 0.3)), 3.0

def main():
    detached.in_background()
    module = AnsibleModule({"seconds": {"type": "float"}, "secret": {"no_log": True}}, supports_check_mode=True)
    open(os.path.join(os.environ["HOME"], "works"), "w").write(str(os.getpid()))
    Progress.from_environment().say("begun")
    time.sleep(module.params["seconds"])
    # Of what Ansible packed, and not imported before: it must still be there.
    from ansible.module_utils.common.text.formatters import human_to_bytes
    module.warn("a warning")
    if module.params["seconds"] == 0.123:
        raise RuntimeError("no idea")
    module.exit_json(changed=True, bytes=human_to_bytes("1K"), tmpdir=os.path.isdir(module.tmpdir))

if __name__ == "__main__":
    main()
"""
PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - slow: {seconds: "{{ seconds }}", secret: s3cr3t}
"""


class Lab:
    def __init__(self, folder: Path, tmp: Path) -> None:
        self.folder, self.home, self.tmp = folder, folder / "home", tmp
        for name, text in {"action_plugins": ACTION, "library": MODULE}.items():
            (folder / name).mkdir()
            (folder / name / "slow.py").write_text(text)
        (folder / "play.yml").write_text(PLAY)
        self.home.mkdir()

    def start(self, seconds: float, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [Path(sys.executable).with_name("ansible-playbook"), "-vvv", "-i", "spark-1,", "-c", "local", "play.yml",
             "-e", json.dumps({"seconds": seconds, "ansible_python_interpreter": sys.executable})],
            cwd=self.folder,
            env=os.environ
            | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "HOME": str(self.home), "TMPDIR": str(self.tmp)}
            | {"ANSIBLE_CALLBACK_RESULT_FORMAT": "json", **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )  # fmt: skip

    @property
    def left(self) -> list[str]:
        jobs = [path.name for path in (self.home / ".ansible_async").glob("*")]
        return jobs + [path.name for path in self.tmp.glob("ansible_*payload*")]

    def at_work(self) -> bool:
        try:
            pid = (self.home / "works").read_text()
            return "State:\tZ (" not in Path("/proc", pid, "status").read_text()
        except OSError:
            return False


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    # The newest Ansible has a socket in TMPDIR, whose path may have 107 characters. Those of pytest's own folders are longer at times.
    with tempfile.TemporaryDirectory(prefix="jobs-") as tmp:
        yield Lab(tmp_path, Path(tmp))


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)


@pytest.mark.parametrize("pipelining", ["true", "false"])
@pytest.mark.parametrize("seconds", [0, 2])
def test_a_module_gives_its_result_as_a_plain_one_does(lab: Lab, pipelining: str, seconds: float) -> None:
    # One that is done at once is done before its front is tired of waiting, however slow this machine is.
    watch = {} if seconds else {"LAB_WATCH": "60"}
    told, _ = lab.start(seconds, ANSIBLE_PIPELINING=pipelining, **watch).communicate(timeout=120)
    assert "spark-1: begun" in told
    result = told.partition("changed: [spark-1] => ")[2].partition("\n\n")[0]
    assert '"bytes": 1024' in result and '"tmpdir": true' in result and "sparkfleet_job" not in result
    assert "a warning" in told and "s3cr3t" not in told
    until(lambda: not lab.left)
    executions = told.count("> EXEC ")
    if pipelining == "true":
        assert executions == 1 if seconds == 0 else executions > 3


def test_an_exception_is_told_as_ever(lab: Lab) -> None:
    told, _ = lab.start(0.123).communicate(timeout=120)
    assert "FAILED!" in told and "no idea" in told


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_takes_its_work_along(lab: Lab, number: int) -> None:
    """Ansible ends its workers on the spot, so it is the lease that does it."""
    run = lab.start(90)
    until(lab.at_work)
    os.killpg(run.pid, number)
    until(lambda: not lab.at_work(), 20)
    until(lambda: not lab.left)
    run.communicate(timeout=60)
