# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a test run says of its parts: how long they took, what failed, and what did not run at all."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "molecule/lab"))

import timed


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
    monkeypatch.setattr(timed, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(timed, "BUDGETS", tmp_path / "budgets.yml")
    timed.BUDGETS.write_text("{quick: 10, slow: 10, broken: 10, absent: 10, all: 20}")
    return tmp_path / "kept"


@pytest.fixture
def process(tmp_path):
    """Writes what /proc shows of a process; without a parent, it ends."""

    def write(pid, parent=None, command=()):
        at = tmp_path / "proc" / str(pid)
        if parent is None:
            (at / "stat").unlink()
            (at / "cmdline").unlink()
            return at.rmdir()
        at.mkdir(parents=True, exist_ok=True)
        (at / "stat").write_bytes(b"%d (a (b) \xff) S %d 1 1" % (pid, parent))
        return (at / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in command))

    process_root = tmp_path / "proc"
    process_root.mkdir()
    (process_root / "meminfo").write_text("")
    return write


PLAYBOOK = ("/venv/bin/python3", "/venv/bin/ansible-playbook", "site.yml")


def keep(kept, **parts):
    kept.mkdir(exist_ok=True)
    for name, part in parts.items():
        (kept / f"{name}.json").write_text(json.dumps(part))


def test_a_playbook_counts_once_however_often_it_forks(process, tmp_path):
    process(10, 1, ["molecule"])
    playbooks = timed.Playbooks(10, tmp_path / "proc")
    assert not playbooks.look() and playbooks.runs == 0
    process(12, 10, PLAYBOOK)
    process(11, 12, PLAYBOOK)  # its worker, with a lower number
    process(13, 12, PLAYBOOK)
    process(14, 1, PLAYBOOK)  # of somebody else
    assert playbooks.look() and playbooks.runs == 1
    assert playbooks.look() and playbooks.runs == 1
    for pid in (11, 12, 13):
        process(pid)
    assert not playbooks.look() and playbooks.runs == 1


def test_one_that_another_one_starts_counts_and_so_does_the_next(process, tmp_path):
    process(10, 1, ["molecule"])
    playbooks = timed.Playbooks(10, tmp_path / "proc")
    process(11, 10, PLAYBOOK)
    process(12, 11, PLAYBOOK)
    process(13, 12, [*PLAYBOOK, "--check"])
    assert playbooks.look() and playbooks.runs == 2
    process(13)
    process(11)
    process(12, 1, PLAYBOOK)  # a worker that outlives it, and was counted with it
    process(15, 10, PLAYBOOK)
    assert playbooks.look() and playbooks.runs == 3


def test_one_is_seen_that_was_something_else_when_it_was_first_looked_at(process, tmp_path):
    process(10, 1, ["molecule"])
    playbooks = timed.Playbooks(10, tmp_path / "proc")
    process(11, 10, ["python", "-m", "pytest"])
    assert not playbooks.look()
    process(11, 10, PLAYBOOK)
    assert playbooks.look() and playbooks.runs == 1


def test_a_run_is_kept_with_its_playbooks_and_ends_as_the_command_does(tmp_path, monkeypatch, kept):
    monkeypatch.setattr(timed, "TICK", 0.05)
    playbook = tmp_path / "ansible-playbook"
    playbook.write_text("#!/bin/sh\nsleep 0.4\n")
    playbook.chmod(0o755)
    assert (
        timed.main(["run", "quick", "/bin/sh", "-c", f"{playbook}; sleep 0.4; {playbook} again; exit 3"]) == 3
    )
    seen = json.loads((kept / "quick.json").read_text())
    assert (seen["status"], seen["playbooks"]) == (3, 2)
    assert 0.5 < seen["in_playbooks"] < seen["seconds"] - 0.2


def test_a_run_that_is_killed_failed(kept):
    assert timed.main(["run", "quick", "/bin/sh", "-c", "kill -9 $$"]) == 137
    assert json.loads((kept / "quick.json").read_text())["status"] == 137


def test_a_part_shows_its_output_when_it_ends_and_keeps_it(kept, capfdbinary):
    assert timed.main(["part", "quick", "/bin/sh", "-c", "echo of it; echo wrong >&2; exit 3"]) == 3
    assert (kept / "quick.log").read_bytes() == b"of it\nwrong\n"
    sys.stdout.flush()
    assert b"of it\nwrong\n" in capfdbinary.readouterr().out
    assert json.loads((kept / "quick.json").read_text())["status"] == 3


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (
            "a\n\x1b[31mFAILED\x1b[0m test_x.py::test_y\nb\nfatal: [a]: no\n",
            ["FAILED test_x.py::test_y"],
        ),
        (
            "  │ E   assert 1 == 2\n  │ FAILED test_x.py::test_y\n  │ fatal: [a]: no\nERROR verify\n",
            ["E   assert 1 == 2", "FAILED test_x.py::test_y"],
        ),
        ("  │ ERROR test_z.py\n1 passed\n", ["ERROR test_z.py"]),
        ("fatal: [a]: no\nERROR verify\n", ["fatal: [a]: no", "ERROR verify"]),
        ("plugins/x.py:1: error: no\n", ["plugins/x.py:1: error: no"]),
        ("one\n\ntwo\n", ["one", "two"]),
        ("".join(f"ERROR {n}\n" for n in range(20)), [f"ERROR {n}" for n in range(12, 20)]),
        ("ERROR " + "x" * 1000, ["ERROR " + "x" * 234]),
    ],
)
def test_why_a_part_failed_stands_below_the_table(kept, capsys, output, expected):
    keep(
        kept,
        broken={"status": 2, "seconds": 1.0},
        quick={"status": 0, "seconds": 1.0},
        all={"status": 0, "seconds": 2.0},
    )
    (kept / "broken.log").write_text(output)
    (kept / "quick.log").write_text("ERROR of one that passed\n")
    assert timed.main(["table", "all", "quick", "broken"]) == 1
    assert capsys.readouterr().out.splitlines()[4:] == [f"broken: {line}" for line in expected]


def test_the_table_names_what_failed_what_is_slow_and_what_never_ran(kept, capsys):
    keep(
        kept,
        quick={"status": 0, "seconds": 15.0, "playbooks": 3, "in_playbooks": 7.6},
        slow={"status": 0, "seconds": 15.6},
        broken={"status": 2, "seconds": 1.0},
        all={"status": 0, "seconds": 16.0},
    )
    assert timed.main(["table", "all", "quick", "slow", "broken", "absent"]) == 1
    rows = {
        line.split()[0]: re.split(r"  +", line, maxsplit=5)[1:]
        for line in capsys.readouterr().out.splitlines()
    }
    assert rows == {
        "part": ["seconds", "budget", "playbook runs", "seconds in them", "verdict"],
        "quick": ["15", "10", "3", "8", "passed"],
        "slow": ["16", "10", "0", "0", "TOO SLOW: expected at most 15 s"],
        "broken": ["1", "10", "0", "0", "FAILED with 2"],
        "absent": ["-", "10", "-", "-", "DID NOT RUN"],
        "all": ["16", "20", "0", "0", "FAILED in slow, broken, absent"],
    }


@pytest.mark.parametrize(
    ("parts", "status"), [({}, 1), ({"seconds": 16.0}, 1), ({"status": 1}, 1), ({"seconds": 15.0}, 0)]
)
def test_the_table_passes_where_every_part_did(kept, parts, status):
    keep(kept, all={"status": 0, "seconds": 20.0})
    if parts:
        keep(kept, quick={"status": 0, "seconds": 1.0} | parts)
    assert timed.main(["table", "all", "quick"]) == status


def test_what_is_neither_is_refused(capsys):
    assert timed.main(["run", "quick"]) == 2
    assert "expected `run WHOLE COMMAND...`, `part PART COMMAND...`" in capsys.readouterr().err


def test_every_scenario_has_a_budget_and_nothing_else_but_what_the_makefile_times():
    budgets = yaml.safe_load((ROOT / "molecule/lab/budgets.yml").read_text())
    scenarios = {path.parent.name for path in ROOT.glob("molecule/*/molecule.yml")}
    others = {"lint", "unit", "matrix", "ee", "test", "test-long"}
    assert {name.removesuffix("-whole") for name in budgets} == scenarios | others
    assert all(isinstance(seconds, int) and seconds > 0 for seconds in budgets.values())
