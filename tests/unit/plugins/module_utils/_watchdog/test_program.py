# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program against an engine, a server and a systemctl that answer: what it writes, tells, keeps and does."""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._common import sources
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host import request, unit
from ansible_collections.sparkfleet.vllm.plugins.module_utils._vllm import client
from ansible_collections.sparkfleet.vllm.plugins.module_utils._watchdog import (
    look,
    program,
    settings,
)
from ansible_collections.sparkfleet.vllm.plugins.module_utils._watchdog.look import Host
from ansible_collections.sparkfleet.vllm.plugins.module_utils._watchdog.program import Desk
from ansible_collections.sparkfleet.vllm.plugins.module_utils._watchdog.seen import Now
from ansible_collections.sparkfleet.vllm.plugins.module_utils._watchdog.settings import Places, Settings
from helpers import watchdog as helper
from helpers.watchdog import SECRET, TOKEN, Clock


class Watched:
    """A Spark, and the program that looks at it every 20 seconds."""

    def __init__(self, spark: helper.Spark, clock: Clock) -> None:
        self.spark, self.clock = spark, clock
        self.desk = Desk(Host(spark.state, str(spark.socket), spark.proc), spark.runtime)
        self.places = Places(spark.state)
        self.places.key.write_text(SECRET)
        self.set("act")

    def set(self, mode: str, **given: Any) -> None:
        text = json.dumps(settings.config(Settings(mode=mode, **given)))
        self.places.config.write_text(text)

    def look(self) -> dict[str, Any]:
        program.run(self.desk)
        self.clock.pass_time(20)
        return self.verdict

    @property
    def verdict(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.places.verdict.read_text())
        return found

    @property
    def agent(self) -> str:
        return (self.spark.runtime / "agent").read_text()

    def wedge(self) -> None:
        """Requests run, and nothing is made."""
        self.spark.running = 4
        self.spark.generated += 10
        self.look()

    def serve_again(self, at: str) -> None:
        self.spark.status, self.spark.started_at = "running", at
        self.spark.running, self.spark.generated = 0, 0


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    with helper.spark(tmp_path) as spark:
        clock = Clock(spark)
        monkeypatch.setattr(look, "now", lambda host: clock.now(host, Now))
        monkeypatch.setattr(request, "PATH", f"{spark.programs}:/usr/bin:/bin")
        monkeypatch.setattr(unit, "UNITS", spark.units)
        monkeypatch.setattr(client, "SHORT_TIMEOUT", 0.3)
        yield Watched(spark, clock)


def test_a_server_that_works(watched: Watched) -> None:
    for _each in range(5):
        watched.spark.running = 1
        watched.spark.generated += 50
        found = watched.look()
    assert found["verdict"] == "well"
    assert found | {"looked_at": 0} == {
        "version": 1,
        "looked_at": 0,
        "mode": "act",
        "recipe": "gemma",
        "container": "c" * 64,
        "verdict": "well",
        "reason": "makes tokens",
        "findings": [],
        "speculation": None,
        "restarts": [],
        "agent": "up",
        "evidence": [],
    }
    assert (watched.agent, watched.spark.ordered(), watched.spark.asked) == ("up\n", [], [])
    assert oct(watched.places.verdict.stat().st_mode & 0o777) == "0o600"


def test_a_wedged_server_is_restarted_with_evidence_and_without_secrets(
    watched: Watched, capsys: pytest.CaptureFixture[str]
) -> None:
    watched.spark.log += "another-secret\n" + "x" * 100
    told = []
    watched.wedge()
    for _each in range(3):
        found = watched.look()
        told.append((found["verdict"], watched.agent))
    assert told == [("well", "up\n"), ("starting", "down #wedged\n"), ("starting", "up\n")]
    assert watched.spark.ordered() == ["restart --no-block sparkfleet-vllm.service"]
    assert (watched.spark.killed, len(found["restarts"])) == (1, 1)
    (name,) = found["evidence"]
    assert re.fullmatch(r"[0-9]{8}T[0-9]{6}Z-wedged", name)
    folder = watched.places.evidence / name
    kept = {path.name: path.read_text() for path in folder.iterdir()}
    assert set(kept) == {"log", "metrics", "nvidia-smi", "meminfo", "processes"}
    assert kept["log"].startswith("line\nAuthorization: Bearer ***\nhf_***\n***\n")
    assert kept["processes"] == "2048 MiB\tVLLM::EngineCore\n"
    assert kept["nvidia-smi"] == "the whole of nvidia-smi\n"
    said = capsys.readouterr().out
    for secret in (SECRET, TOKEN, "another-secret"):
        assert secret not in said + "".join(kept.values()) + watched.places.verdict.read_text()
    assert "<4>restarted; wedged: 4 running" in said
    assert oct(folder.stat().st_mode & 0o777) == "0o700"


def test_gateways_are_told_before_the_restart(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(program.act, "act", lambda *_given: seen.append(watched.agent))
    watched.wedge()
    watched.look()
    watched.look()
    assert seen == ["down #wedged\n"]


def test_the_third_time_it_stays_down_loudly(watched: Watched, capsys: pytest.CaptureFixture[str]) -> None:
    for at in ("b", "c", "d"):
        watched.wedge()
        watched.look()
        watched.look()
        if at != "d":
            watched.serve_again(at)
            watched.look()
    assert watched.spark.ordered() == [
        *["restart --no-block sparkfleet-vllm.service"] * 2,
        "stop --no-block sparkfleet-vllm.service",
    ]
    assert watched.verdict["verdict"] == "down"
    assert re.search(r"^<3>stopped for good after too many restarts; wedged", capsys.readouterr().out, re.M)
    (watched.spark.systemd / "active").write_text("inactive")
    for _each in range(3):
        assert (watched.look()["verdict"], watched.agent) == ("down", "down #down\n")
    assert (watched.spark.killed, len(watched.spark.ordered())) == (3, 3)
    watched.serve_again("e")
    assert (watched.look()["verdict"], watched.agent) == ("well", "up\n")


def test_observe_keeps_evidence_once_and_keeps_no_request_away(watched: Watched) -> None:
    watched.set("observe")
    watched.wedge()
    for _each in range(6):
        found = watched.look()
    assert [each["kind"] for each in found["findings"]] == ["wedged"]
    assert (found["verdict"], watched.agent, len(found["evidence"])) == ("bad", "up\n", 1)
    assert (watched.spark.ordered(), watched.spark.killed) == ([], 0)


def test_while_a_run_is_at_work_it_only_looks(watched: Watched) -> None:
    watched.spark.hold()
    watched.wedge()
    for _each in range(5):
        found = watched.look()
        assert (found["verdict"], found["agent"]) == ("held", "up")
    assert "me@there" in found["reason"]
    assert (watched.spark.ordered(), watched.spark.asked, found["evidence"]) == ([], [], [])


def test_a_run_that_begins_between_look_and_restart_comes_first(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = program.evidence.keep

    def slowly(*given: Any) -> str:
        watched.spark.hold()
        return keep(*given)

    monkeypatch.setattr(program.evidence, "keep", slowly)
    watched.wedge()
    watched.look()
    found = watched.look()
    assert "a run has begun to work here" in found["reason"]
    assert (watched.spark.ordered(), watched.spark.killed, found["restarts"]) == ([], 0, [])


def test_work_of_a_run_that_lost_its_lock_is_waited_for(watched: Watched) -> None:
    handle = os.open(watched.spark.state / "run.work", os.O_RDWR | os.O_CREAT)
    fcntl.flock(handle, fcntl.LOCK_SH)
    watched.wedge()
    watched.look()
    watched.look()
    assert watched.spark.ordered() == []
    os.close(handle)
    watched.look()
    assert watched.spark.ordered() == ["restart --no-block sparkfleet-vllm.service"]


def test_systemd_that_does_not_follow_is_said_and_nothing_is_killed(watched: Watched) -> None:
    (watched.spark.systemd / "broken").touch()
    watched.wedge()
    watched.look()
    found = watched.look()
    assert "did not restart: expected systemd" in found["reason"]
    assert (watched.spark.killed, found["restarts"]) == (0, [])


def test_a_server_that_answers_nothing_is_restarted(watched: Watched) -> None:
    watched.look()
    watched.spark.silent = True
    found = [watched.look() for _each in range(3)]
    assert [each["verdict"] for each in found] == ["unknown", "unknown", "starting"]
    assert watched.spark.ordered() == ["restart --no-block sparkfleet-vllm.service"]


def test_the_canary_asks_through_the_served_name_with_the_key(watched: Watched) -> None:
    for _each in range(4):
        found = watched.look()
    assert found["verdict"] == "well"
    (asked,) = watched.spark.asked
    assert (asked["model"], asked["max_tokens"], asked["key"]) == ("gemma", 2, f"Bearer {SECRET}")


def test_a_wrong_key_is_told_and_not_shown(watched: Watched) -> None:
    watched.places.key.write_text("a-wrong-key")
    for _each in range(4):
        found = watched.look()
    (finding,) = found["findings"]
    assert (finding["kind"], finding["severity"]) == ("canary", "tell")
    assert finding["seen"] == "/v1/chat/completions answers 401: not welcome: Bearer ***"
    assert watched.spark.ordered() == []


@pytest.mark.parametrize(
    "answer",
    [b"\xff\xfe", b"not metrics {", b"vllm:num_requests_running NaN\n", b"", b"a" * (5 << 20)],
    ids=["bytes", "words", "nan", "nothing", "huge"],
)
def test_whatever_metrics_answer_the_look_ends_with_a_verdict(watched: Watched, answer: bytes) -> None:
    watched.look()
    watched.spark.metrics = answer
    for _each in range(4):
        found = watched.look()
    # Nothing at all is a server without counters, which has no requests either. All else is told, and not mended by a restart.
    assert found["verdict"] == ("bad" if answer else "well")
    assert [each["severity"] for each in found["findings"]] == (["tell"] if answer else [])
    assert watched.spark.ordered() == []


def test_counters_of_a_liar_do_not_disturb_the_memory(watched: Watched) -> None:
    watched.spark.metrics = b"vllm:generation_tokens_total 1e300\nvllm:num_requests_running 1e300\n"
    watched.wedge()
    for _each in range(5):
        watched.look()
    assert len(watched.spark.ordered()) <= 2


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"version": 1}', "\x00" * 10, '{"version": 1, "restarts": 3}']
)
def test_a_damaged_memory_begins_anew_but_for_the_restarts_of_the_last_verdict(
    watched: Watched, text: str
) -> None:
    for at in ("b", "c"):
        watched.wedge()
        watched.look()
        watched.look()
        watched.serve_again(at)
        watched.look()
    watched.places.memory.write_text(text)
    assert len(watched.look()["restarts"]) == 2
    watched.wedge()
    watched.look()
    assert watched.look()["verdict"] == "down"


@pytest.mark.parametrize("text", ["", "{", "null", '{"findings": [1]}'])
def test_a_damaged_verdict_is_written_anew(watched: Watched, text: str) -> None:
    watched.look()
    watched.places.verdict.write_text(text)
    assert watched.look()["verdict"] == "well"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 2}', '{"version": 1, "mode": "act"}', None])
def test_damaged_settings_are_said_and_nothing_is_done(watched: Watched, text: str | None) -> None:
    watched.wedge()
    if text is None:
        watched.places.config.unlink()
    else:
        watched.places.config.write_text(text)
    for _each in range(4):
        found = watched.look()
    assert (found["verdict"], found["agent"]) == ("unknown", "up")
    assert "expected settings" in found["reason"] and "site.yml" in found["reason"]
    assert watched.spark.ordered() == []


def test_values_that_no_watchdog_could_work_with_are_refused(watched: Watched) -> None:
    watched.set("act", interval=1)
    assert "interval: expected 5 to 120, seen 1" in watched.look()["reason"]


@pytest.mark.parametrize("text", ["{", '{"version": 9}', '{"version": 1, "current": {}}'])
def test_a_damaged_record_is_said(watched: Watched, text: str) -> None:
    (watched.spark.state / "state.json").write_text(text)
    found = watched.look()
    assert (found["verdict"], found["agent"]) == ("unknown", "up")
    assert "state.json" in found["reason"]


def test_a_name_that_is_no_container_reaches_neither_engine_nor_systemd(watched: Watched) -> None:
    path = watched.spark.state / "state.json"
    path.write_text(path.read_text().replace(helper.NAME, "../../x --force"))
    assert "no name of a container" in watched.look()["reason"]


def test_an_engine_that_does_not_answer_is_said(watched: Watched) -> None:
    watched.spark.socket.unlink()
    found = watched.look()
    assert (found["verdict"], found["agent"]) == ("unknown", "up")
    assert "systemctl status docker" in found["reason"]


def test_the_journal_has_a_line_when_something_changes_and_none_else(
    watched: Watched, capsys: pytest.CaptureFixture[str]
) -> None:
    for _each in range(5):
        watched.spark.generated += 1
        watched.look()
    assert len(capsys.readouterr().out.splitlines()) == 1
    (watched.spark.proc / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable: 1 kB\n")
    watched.look()
    watched.look()
    assert capsys.readouterr().out.startswith("<4>bad: memory: 0.0 GiB")


def test_the_program_runs_alone_from_its_sources(watched: Watched, tmp_path: Path) -> None:
    """As the timer starts it: another process, without Ansible and without the collection."""
    folder = tmp_path / "program"
    for path, content in sources.files("_watchdog.program").items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    # Nobody may find Ansible, and what the program asks is the Spark of the test.
    start = (
        f"import sys; sys.path.insert(0, {str(folder)!r}); sys.modules['ansible'] = None\n"
        f"from {sources.PACKAGE}._host import request, unit\n"
        f"from {sources.PACKAGE}._watchdog import look, program\n"
        "from pathlib import Path\n"
        f"request.PATH = {request.PATH!r}; unit.UNITS = Path({str(watched.spark.units)!r})\n"
        f"look.Host.__init__.__defaults__ = ({str(watched.spark.socket)!r}, Path({str(watched.spark.proc)!r}))\n"
        f"sys.exit(program.main(['watchdog', {str(watched.spark.state)!r}]))\n"
    )
    environment = {"RUNTIME_DIRECTORY": str(watched.spark.runtime)}
    done = subprocess.run(
        [sys.executable, "-I", "-c", start], env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "<5>well: idle, and answers\n"
    assert (watched.verdict["verdict"], watched.agent) == ("well", "up\n")
    # And as it is started on a host, with the state of nobody.
    nobody = tmp_path / "nobody"
    done = subprocess.run(
        [sys.executable, "-I", str(folder), str(nobody)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout[:3]) == (1, "<3>")


def test_two_looks_at_once_are_one(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "run", lambda desk: pytest.fail("looked"))
    handle = os.open(watched.places.directory, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    assert program.main(["watchdog", str(watched.spark.state)]) == 0
    os.close(handle)
