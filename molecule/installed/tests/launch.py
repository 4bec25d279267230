# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A controller, as far as a job is concerned: it renders a template and the credentials that go with it into a private data
directory, has ansible-runner run it there, and keeps what that leaves. No web server, no database, no queue.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import yaml
from places import BIN, LAB, ROOT, outside


class Loader(yaml.SafeLoader):
    """`!unsafe` is a text that the controller renders, not Ansible."""


Loader.add_constructor("!unsafe", lambda _loader, node: node.value)


def data(name: str) -> dict[str, Any]:
    return dict(yaml.load((ROOT / f"controller/{name}.yml").read_text(), Loader))


def rendered(value: Any, given: Mapping[str, Any]) -> Any:
    if isinstance(value, Mapping):
        return {name: rendered(entry, given) for name, entry in value.items()}
    if isinstance(value, str):
        return jinja2.Template(value, undefined=jinja2.StrictUndefined).render(given)
    return value


def injected(kind: str, **fields: str) -> dict[str, str]:
    """What a credential of that type puts into the environment of a job."""
    (found,) = (
        each for each in data("credential_types")["controller_credential_types"] if each["name"] == kind
    )
    assert set(fields) == {each["id"] for each in found["inputs"]["fields"]}
    return dict(rendered(found["injectors"]["env"], fields))


@dataclass
class Job:
    """What a job left: events, artifacts, and how it ended."""

    status: str
    output: str
    events: list[dict[str, Any]]
    folder: Path

    @property
    def artifacts(self) -> dict[str, Any]:
        """What a workflow hands on as extra variables to its next node."""
        (end,) = [event["event_data"] for event in self.events if event["event"] == "playbook_on_stats"]
        return dict(end["artifact_data"])

    @property
    def changed(self) -> set[str]:
        (end,) = [event["event_data"] for event in self.events if event["event"] == "playbook_on_stats"]
        return {host for host, count in end["changed"].items() if count}

    def lines(self, kind: str = "verbose") -> list[str]:
        """What events of that kind show, line by line: progress and tables are `verbose`."""
        shown = [event["stdout"] for event in self.events if event["event"] == kind]
        return [line for text in shown for line in text.splitlines()]


@dataclass
class Controller:
    private: Path
    project: Path
    settings: dict[str, Any]
    jobs: list[Job] = field(default_factory=list)

    def launch(
        self,
        template: str,
        *options: str,
        environment: Mapping[str, str],
        cancel: Callable[[], Any] | None = None,
        ok: bool = True,
        **answers: Any,
    ) -> Job:
        """A job of a template, its survey answered; canceled as soon as that comes true."""
        (found,) = (each for each in data("templates")["controller_templates"] if each["name"] == template)
        asked = {question["variable"] for question in (found.get("survey_spec") or {}).get("spec", [])}
        assert set(answers) <= asked, f"{template} does not ask for {set(answers) - asked}"
        ident = f"{len(self.jobs) + 1}"
        self._inject(rendered(found.get("extra_vars") or {}, self.settings) | answers, environment, options)
        command = [
            BIN / "ansible-runner",
            "run",
            self.private,
            "--ident",
            ident,
            "--quiet",
            "-p",
            found["playbook"],
        ]
        command += ["--inventory", self.project / "inventory/mine/hosts.yml"]
        process = subprocess.Popen(
            [str(word) for word in command], env=outside() | {"PATH": f"{BIN}:/usr/bin:/bin:/usr/sbin:/sbin"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        while cancel and process.poll() is None:
            if cancel():
                process.send_signal(signal.SIGTERM)
                break
            time.sleep(0.1)
        printed = process.communicate(timeout=900)[0]
        # A controller keeps events and artifacts; what held the secrets is gone with the job.
        shutil.rmtree(self.private / "env")
        job = self._left(self.private / "artifacts" / ident, printed)
        self.jobs.append(job)
        assert (job.status == "successful") is ok, job.output + printed
        return job

    def _inject(
        self, extra: Mapping[str, Any], environment: Mapping[str, str], options: tuple[str, ...]
    ) -> None:
        folder = self.private / "env"
        folder.mkdir(mode=0o700)
        paths = {"ANSIBLE_COLLECTIONS_PATH": str(self.private / "collections")}
        (folder / "extravars").write_text(json.dumps(extra))
        (folder / "envvars").write_text(json.dumps({**paths, "ANSIBLE_FORCE_COLOR": "0", **environment}))
        (folder / "ssh_key").write_text((LAB / "ssh/id_ed25519").read_text())
        (folder / "cmdline").write_text(" ".join(options))

    @staticmethod
    def _left(folder: Path, printed: str) -> Job:
        def events() -> Iterator[dict[str, Any]]:
            for path in (folder / "job_events").glob("*.json"):
                if not path.name.endswith("-partial.json"):
                    yield json.loads(path.read_text())

        assert (folder / "status").exists(), printed
        return Job(
            (folder / "status").read_text(),
            (folder / "stdout").read_text(),
            sorted(events(), key=lambda event: int(event["counter"])),
            folder,
        )
