# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Spark for the watchdog: an engine with one container, a server in it, and stand-ins of systemctl and nvidia-smi."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from helpers.server import Handler, UnixServer, served

NAME = "sparkfleet-vllm"
SECRET, TOKEN = "key-of-the-server", "hf_" + "a1" * 12
SYSTEMCTL = """#!/bin/sh
cd {folder}
case $1 in
show) echo "ActiveState=$(cat active)"; echo MainPID=1; echo NRestarts=0; echo Result=success
      [ -e "enabled-$3" ] && echo UnitFileState=enabled; :;;
enable) : > "enabled-$2"; echo "$*" >> log;;
disable) rm -f "enabled-$3"; echo "$*" >> log;;
*) echo "$*" >> log; [ ! -e broken ];;
esac
"""
SMI = """#!/bin/sh
case $1 in
-q) echo "the whole of nvidia-smi";;
*clocks_event_reasons*) exit 2;;
*) echo "[N/A], [N/A], 208";;
esac
"""
METRICS = """\
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{engine="0"}} {running}
# TYPE vllm:generation_tokens counter
vllm:generation_tokens_total{{engine="0"}} {generated}
# TYPE vllm:iteration_tokens_total histogram
vllm:iteration_tokens_total_count{{engine="0"}} {generated}
"""


class Spark:
    """What a test changes about it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state, self.proc, self.programs = root / "state", root / "proc", root / "bin"
        self.units, self.systemd, self.runtime = root / "units", root / "systemd", root / "run"
        for folder in (self.state / "watchdog", self.programs, self.units, self.systemd, self.runtime):
            folder.mkdir(parents=True)
        self.socket = root / "engine.sock"
        self.base_url = ""
        self.status, self.started_at = "running", "2026-11-30T10:00:00Z"
        self.running, self.generated = 0, 100
        self.log = f"line\nAuthorization: Bearer {SECRET}\n{TOKEN}\n"
        self.metrics: bytes | None = None
        """The answer; None for one of the counters."""
        self.silent = False
        """Answers nothing any more."""
        self.asked: list[dict[str, Any]] = []
        """Completions"""
        self.killed = 0
        self._prepare()

    def _prepare(self) -> None:
        for program, text in {
            "systemctl": SYSTEMCTL.format(folder=self.systemd),
            "nvidia-smi": SMI,
        }.items():
            (self.programs / program).write_text(text)
            (self.programs / program).chmod(0o755)
        (self.systemd / "active").write_text("active")
        (self.units / f"{NAME}.service").write_text("[Unit]\n")
        (self.proc / "sys/kernel/random").mkdir(parents=True)
        (self.proc / "sys/kernel/random/boot_id").write_text("one\n")
        (self.proc / "meminfo").write_text("MemTotal: 100000000 kB\nMemAvailable: 50000000 kB\n")
        (self.proc / "vmstat").write_text("pgpgin 1\npswpin 7\n")
        (self.proc / "7").mkdir()
        (self.proc / "7/status").write_text("Name:\tVLLM::EngineCore\nVmRSS:\t2097152 kB\n")
        (self.proc / "7/cmdline").write_text(f"vllm\0--api-key\0{SECRET}\0")

    def ordered(self) -> list[str]:
        """What systemctl was told."""
        log = self.systemd / "log"
        return log.read_text().splitlines() if log.exists() else []

    def on_record(self, **gate: Any) -> None:
        gate = {"served_model": "gemma", "base_url": self.base_url, "speculation": None, **gate}
        container = {"image": "image@sha256:1", "name": NAME}
        serving = {"recipe": "gemma", "container": container, "models": {}, "files": [], "gate": gate}
        current = {"serving": serving, "gate": {}}
        (self.state / "state.json").write_text(json.dumps({"version": 1, "current": current}))

    def hold(self) -> None:
        """A run takes the host."""
        run = {"version": 1, "run": "1", "holder": "me@there", "controller": "", "since": "now", "pid": 1}
        (self.state / "run.json").write_text(json.dumps(run | {"lease": 120}))

    def inspected(self) -> dict[str, Any]:
        return {
            "Id": "c" * 64,
            "Image": "sha256:1",
            "RestartCount": 0,
            "State": {"Status": self.status, "StartedAt": self.started_at},
            "Config": {"Image": "image", "Env": ["VLLM_API_KEY=another-secret", "A=short"]},
            "HostConfig": {},
        }


class _Engine(Handler):
    spark: Spark

    def address_string(self) -> str:
        return "engine"

    def do_GET(self) -> None:
        if self.path.startswith(f"/containers/{NAME}/json"):
            self.answer(200, json.dumps(self.spark.inspected()).encode())
        elif self.path.startswith(f"/containers/{NAME}/logs"):
            text = self.spark.log.encode()
            self.answer(200, b"\x01\0\0\0" + len(text).to_bytes(4, "big") + text)
        else:
            self.answer(404, b'{"message": "No such container"}')

    def do_POST(self) -> None:
        self.spark.killed += 1
        self.spark.status = "exited"
        self.answer(204)


class _Server(Handler):
    spark: Spark
    over: threading.Event

    def do_GET(self) -> None:
        if self.spark.silent:
            self.over.wait()
            return
        text = METRICS.format(running=self.spark.running, generated=self.spark.generated).encode()
        self.answer(200, text if self.spark.metrics is None else self.spark.metrics)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.spark.asked.append(asked | {"key": self.headers.get("Authorization")})
        if self.headers.get("Authorization") != f"Bearer {SECRET}":
            said = f"not welcome: {self.headers.get('Authorization')}"
            self.answer(401, json.dumps({"error": {"message": said}}).encode())
            return
        self.spark.generated += 2
        choices = [{"message": {"content": "yes"}}]
        self.answer(200, json.dumps({"choices": choices, "usage": {"completion_tokens": 2}}).encode())


@contextlib.contextmanager
def spark(root: Path) -> Iterator[Spark]:
    there = Spark(root)
    over = threading.Event()
    engine = type("Engine", (_Engine,), {"spark": there})
    server = type("Server", (_Server,), {"spark": there, "over": over})
    with (
        served(UnixServer(str(there.socket), engine)),
        served(ThreadingHTTPServer(("127.0.0.1", 0), server)) as listening,
    ):
        listening.daemon_threads = True
        there.base_url = f"http://127.0.0.1:{listening.server_address[1]}"
        there.on_record()
        try:
            yield there
        finally:
            over.set()


class Clock:
    """Time as a test has it. The boot is the Spark's."""

    def __init__(self, spark: Spark) -> None:
        self.unix, self.steady, self._spark = time.time(), 5000.0, spark

    def now(self, _host: Any, kind: Any) -> Any:
        boot = (self._spark.proc / "sys/kernel/random/boot_id").read_text().strip()
        return kind(self.unix, self.steady, boot)

    def pass_time(self, seconds: float) -> None:
        self.unix += seconds
        self.steady += seconds
