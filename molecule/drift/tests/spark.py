"""The host of the scenario: looked at by playbooks, and what they report of it."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import testing
from edits import NAME, Edit, Record

SCENARIO = Path(__file__).parents[1]
HOST = "drifts"
STATE = "/var/lib/sparkfleet/state.json"
DIGEST = """
find /srv/sparkfleet /var/lib/sparkfleet /etc /opt/sparkfleet -xdev \\( -type f -o -type l \\) ! -name gate.json \\
  -printf '%p %s %m %T@ %C@\\n' | sort | sha256sum
docker ps --all --no-trunc --format '{{.ID}} {{.Names}} {{.State}}' | sort
docker images --digests --no-trunc --format '{{.ID}} {{.Repository}} {{.Tag}} {{.Digest}}' | sort
docker inspect --format '{{.Image}} {{.State.StartedAt}} {{.RestartCount}} {{json .Config}} {{json .HostConfig}}' $(docker ps --all --quiet) | sort
"""
"""Prints all that a look must leave as it is. Sorted: what was made in the same second, the engine lists in any order. The last verdict
of the gate, with its time, is what a measurement is for."""


def on(script: str) -> str:
    """As root on the host."""
    return testing.on(HOST, script)


def recorded() -> Record:
    """What serves and has passed the gate, with the labels of its container."""
    serving = json.loads(on(f"cat {STATE}"))["current"]["serving"]
    labels = json.loads(on(f"docker inspect {NAME}"))[0]["Config"]["Labels"]
    ours = {name: value for name, value in labels.items() if name.startswith("sparkfleet.vllm.")}
    return {**serving, "labels": ours}


# -- runs


def playbook(name: str, *options: str, **extra: Any) -> subprocess.CompletedProcess[str]:
    return testing.play(testing.PLAYBOOKS / f"{name}.yml", SCENARIO / "inventory", *options, **extra)


@dataclass(frozen=True)
class Report:
    """What a run has written of the host. `output` and `code` are those of the run."""

    code: int
    output: str
    page: str
    data: dict[str, Any]

    @classmethod
    def read(cls, folder: Path, done: subprocess.CompletedProcess[str]) -> Report:
        output = done.stdout + done.stderr
        files = {path.name: path.read_text() for path in folder.iterdir()}
        assert set(files) == {"drift.json", "drift.html", "drift.prom"}, output
        return cls(done.returncode, output, files["drift.html"], json.loads(files["drift.json"]))

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
        return Report.read(Path(folder), playbook("drift", *options, drift_output=folder, **extra))


def one_by_one(edits: Iterable[Edit]) -> dict[str, Report]:
    """The report of each edit, all of them made and undone in one run."""
    record, listed = recorded(), list(edits)
    told = [
        {
            "name": edit.name,
            "do": edit.do(record),
            "undo": edit.undo(record),
            "roles": edit.roles,
            "arguments": edit.arguments,
        }
        for edit in listed
    ]
    with tempfile.TemporaryDirectory() as folder:
        done = testing.play(
            SCENARIO / "edits.yml", SCENARIO / "inventory", drift_edits=told, drift_output=folder
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return {edit.name: Report.read(Path(folder) / edit.name, done) for edit in listed}


@contextmanager
def side_by_side(edits: Iterable[Edit]) -> Iterator[list[tuple[str, ...]]]:
    """A host with all of these edits at once. Gives what is to be found."""
    record, listed = recorded(), list(edits)
    undo = [edit.undo(record) for edit in reversed(listed)]
    try:
        on("\n".join(edit.do(record) for edit in listed))
        yield [finding for edit in listed for finding in edit.findings]
    finally:
        on("\n".join(undo))


def because(done: subprocess.CompletedProcess[str]) -> set[str]:
    """The parts that a run of site.yml found to be otherwise, and looked at everything for."""
    said = re.search(rf"^{HOST}: to be looked at, because of (.+)$", done.stdout, re.MULTILINE)
    return set(said[1].split(", ")) if said else set()


# -- what is expected


def clean(report: Report) -> None:
    assert not report.host["findings"] and not report.host["unknown"], report.host
    assert report.host["verdict"] == "clean"
    assert set(report.host["subjects"].values()) == {"ok"}


def expect(report: Report, expected: Iterable[tuple[str, ...]]) -> None:
    """Exactly these findings: `subject: kind`, and words that one finding of that kind holds."""
    named = list(expected)
    assert report.kinds == Counter(name for name, *_ in named), report.output
    for name, *words in named:
        kind = name.partition(": ")[2]
        assert report.says(kind, *words), (name, words, report.host["findings"])
        assert kind in report.page
        assert kind in report.output
