"""The host of the scenario: edited as an admin would, compared by the playbook, brought back."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCENARIO = Path(__file__).parents[1]
PLAYBOOKS = SCENARIO.parents[1] / "playbooks"
HOST, NAME, ASIDE = "drifts", "sparkfleet-vllm", "kept"
STATE = "/var/lib/sparkfleet/state.json"
TARGET = "/usr/local/lib/python3.12/dist-packages/vllm/model_executor/models/gemma4_mtp.py"


def docker(*arguments: str, stdin: str | None = None) -> str:
    done = subprocess.run(["docker", *arguments], input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def on(script: str) -> str:
    """As root on the host."""
    return docker(
        "exec", "--interactive", f"sparkfleet-lab-{HOST}", "bash", "-euo", "pipefail", "-s", stdin=script
    )


def read(path: str) -> str:
    return on(f"cat {path}")


def wait(condition: str, within: float = 60) -> None:
    """Until a command on the host succeeds."""
    deadline = time.monotonic() + within
    while on(f"if {condition}; then echo yes; fi").strip() != "yes":
        assert time.monotonic() < deadline, f"it never came to that: {condition}"
        time.sleep(0.2)


def serves() -> None:
    wait("curl -fs http://127.0.0.1:8000/health >/dev/null 2>&1")


# -- runs


def playbook(name: str, *options: str, **extra: Any) -> subprocess.CompletedProcess[str]:
    command = [
        str(Path(sys.executable).with_name("ansible-playbook")),
        f"--inventory={SCENARIO / 'inventory'}",
        f"--extra-vars={json.dumps(extra)}",
        *options,
        str(PLAYBOOKS / f"{name}.yml"),
    ]
    plain = {"ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | plain, check=False)


@dataclass(frozen=True)
class Report:
    code: int
    output: str
    page: str
    data: dict[str, Any]

    @property
    def host(self) -> dict[str, Any]:
        return dict(self.data["hosts"][HOST])

    @property
    def kinds(self) -> Counter[str]:
        return Counter(f"{finding['subject']}: {finding['kind']}" for finding in self.host["findings"])

    def says(self, kind: str, *words: str) -> bool:
        """Whether one finding of that kind holds all of the words, in what was expected and seen."""
        texts = [f"{f['expected']} | {f['seen']}" for f in self.host["findings"] if f["kind"] == kind]
        return any(all(word in text for word in words) for text in texts)


def drift(*options: str, **extra: Any) -> Report:
    with tempfile.TemporaryDirectory() as folder:
        ran = playbook("drift", *options, drift_output=folder, **extra)
        output = ran.stdout + ran.stderr
        files = {path.name: path.read_text() for path in Path(folder).iterdir()}
    assert set(files) == {"drift.json", "drift.html"}, output
    return Report(ran.returncode, output, files["drift.html"], json.loads(files["drift.json"]))


def expect(report: Report, *expected: tuple[str, ...]) -> None:
    """Exactly these findings: `subject: kind`, and words that one finding of that kind holds."""
    assert report.kinds == Counter(name for name, *_ in expected), report.output
    for name, *words in expected:
        kind = name.partition(": ")[2]
        assert report.says(kind, *words), (words, report.host["findings"])
        assert kind in report.page
        assert kind in report.output
    assert report.code == 2, report.output


# -- edits


def recorded() -> dict[str, Any]:
    """The container that passed the gate."""
    return dict(json.loads(read(STATE))["current"]["serving"]["container"])


def by_hand(**over: Any) -> str:
    """`docker run` of the recorded container, with some things otherwise: how somebody would try something out."""
    spec: dict[str, Any] = recorded() | {"labels": {}, "flags": [], "restart": "on-failure:3"} | over
    words = ["docker", "run", "--detach", f"--name={spec['name']}", "--gpus=all"]
    words += [f"--env={name}={value}" for name, value in spec["env"].items()]
    words += [f"--volume={volume}" for volume in spec["volumes"]]
    words += [f"--publish={port}" for port in spec["published_ports"]]
    words += [f"--label={name}={value}" for name, value in spec["labels"].items()]
    words += [f"--ipc={spec['ipc_mode']}", f"--shm-size={spec['shm_size']}", "--cap-drop=ALL"]
    words += [
        "--security-opt=no-new-privileges",
        f"--restart={spec['restart']}",
    ]
    return shlex.join([*words, *spec["flags"], spec["image"], *spec["command"]])


def labels() -> dict[str, str]:
    """Those of the container that was put aside."""
    seen = json.loads(on(f"docker inspect {ASIDE}"))[0]["Config"]["Labels"]
    return {name: value for name, value in seen.items() if name.startswith("sparkfleet.vllm.")}


def put_aside() -> None:
    on(f"docker stop --time 5 {NAME}; docker rename {NAME} {ASIDE}")


def bring_back() -> None:
    on(f"docker rm --force {NAME} || true; docker rename {ASIDE} {NAME}; docker start {NAME}")
    serves()


@contextmanager
def instead(change: Callable[[dict[str, Any]], Mapping[str, Any]] = lambda spec: {}) -> Iterator[None]:
    """A server that was started by hand, in place of the one that was put aside."""
    spec = recorded()
    on(by_hand(**{"labels": labels(), **change(spec)}))
    try:
        serves()
        yield
    finally:
        on(f"docker rm --force {NAME}")
