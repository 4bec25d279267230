# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One Spark as it is now: each part by itself."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host.request import ProbeError
from ansible_collections.sparkfleet.vllm.plugins.module_utils._status import look
from ansible_collections.sparkfleet.vllm.plugins.module_utils._vllm.metrics import Counters
from helpers import status
from helpers.server import Handler, served

VERDICT = {
    "version": 1,
    "looked_at": 1_796_083_192.5,
    "mode": "act",
    "recipe": "r",
    "container": "ab",
    "verdict": "bad",
    "reason": "wedged",
    "findings": [status.finding("wedged", "act")],
    "speculation": {"drafts": 300, "acceptance_rate": 0.5, "floor": 0.4},
    "restarts": [1_796_083_000.0],
    "agent": "up",
    "evidence": [],
}
GPU = "0, 96, 71, 61.20, 2405\n"
SLOWED = "0, Not Active, Not Active, Not Active, Active, Not Active\n"


def entry(port: int, **gate: Any) -> dict[str, Any]:
    limits = {
        "served_model": "m",
        "base_url": f"http://127.0.0.1:{port}",
        "speculation": {"num_speculative_tokens": 1},
        "acceptance_floor": 0.4,
        "minimum_drafts": 200,
    }
    container = {"image": "v@sha256:" + "a" * 64, "name": "c"}
    serving = {"recipe": "r", "container": container, "models": {}, "files": [], "gate": limits | gate}
    return {"serving": serving, "gate": {}}


def counters(tokens: int, accepted: int, start: float = 1.7e9) -> str:
    return "\n".join(
        [
            f'vllm:generation_tokens_total{{engine="0"}} {tokens}',
            'vllm:num_requests_running{engine="0"} 3',
            'vllm:num_requests_waiting{engine="0"} 2',
            'vllm:kv_cache_usage_perc{engine="0"} 0.25',
            'vllm:spec_decode_num_drafts_total{engine="0"} 1000',
            f'vllm:spec_decode_num_accepted_tokens_per_pos_total{{engine="0",position="0"}} {accepted}',
            'vllm:time_to_first_token_seconds_sum{engine="0"} 12',
            'vllm:time_to_first_token_seconds_count{engine="0"} 30',
            f"process_start_time_seconds {start}\n",
        ]
    )


class Server(Handler):
    answers: list[str]

    def do_GET(self) -> None:
        self.answer(200, (self.answers.pop(0) if self.path == "/metrics" else "").encode())


@contextlib.contextmanager
def serving(*answers: str) -> Iterator[int]:
    Server.answers = list(answers)
    with served(ThreadingHTTPServer(("127.0.0.1", 0), Server)) as server:
        yield server.server_address[1]


def smi(argv: Sequence[str], timeout: float) -> str:
    return SLOWED if "throttle" in argv[1] else GPU


@pytest.fixture
def host(tmp_path: Path) -> Path:
    (tmp_path / "proc").mkdir()
    sizes = "MemTotal: 1000 kB\nMemAvailable: 400 kB\nSwapTotal: 100 kB\nSwapFree: 75 kB\n"
    (tmp_path / "proc/meminfo").write_text(sizes)
    (tmp_path / "watchdog").mkdir()
    return tmp_path


def seen(host: Path, run: Any = smi) -> dict[str, Any]:
    return look.look(host, host / "proc", 2.0, run=run, pause=lambda seconds: None)


def put(host: Path, name: str, content: Any) -> None:
    (host / name).write_text(content if isinstance(content, str) else json.dumps(content))


def test_a_spark_that_serves(host: Path) -> None:
    with serving(counters(100, 690), counters(220, 700)) as port:
        put(host, "state.json", {"version": 1, "current": entry(port), "last_good": None})
        put(host, "gate.json", status.GATE)
        put(host, "watchdog/verdict.json", VERDICT)
        found = seen(host)
    assert found["problems"] == {}
    record = found["record"]
    assert (record["recipe"], record["floor"], record["minimum_drafts"]) == ("r", 0.4, 200)
    assert record["before"] is None and record["since"] > 0 and record["unit"] is None
    assert found["gate"]["tokens_per_second"] == 52.6
    server = found["server"]
    assert (server["running"], server["waiting"], server["kv_cache_usage"]) == (3, 2, 0.25)
    assert server["tokens_per_second"] > 100
    assert (server["drafts"], server["acceptance_rate"]) == (1000, 0.7)
    assert server["first_token_seconds"] == 0.4
    assert found["watchdog"]["findings"][0]["kind"] == "wedged"
    assert found["watchdog"]["speculation"]["acceptance_rate"] == 0.5
    assert found["memory"] == {
        "total": 1_024_000,
        "available": 409_600,
        "swap_total": 102_400,
        "swap_used": 25_600,
    }
    assert found["gpu"] == {
        "utilisation": 96.0,
        "power": 61.2,
        "temperature": 71.0,
        "clock": 2405.0,
        "slowed_by": ["sw_thermal"],
    }
    assert found["run"] is None


def test_a_worker_of_a_unit_has_no_server_to_ask_and_no_problem(host: Path) -> None:
    current = entry(1)
    current["serving"] |= {"unit": {"name": "pair", "rank": 1}}
    current["serving"]["gate"]["base_url"] = ""
    put(host, "state.json", {"version": 1, "current": current, "last_good": None})
    found = seen(host)
    assert (found["server"], found["problems"]) == (None, {})
    assert found["record"]["unit"] == {"name": "pair", "rank": 1}


def test_an_empty_spark_has_nothing_and_no_problem(host: Path) -> None:
    found = seen(host)
    assert [found[name] for name in ("record", "gate", "server", "watchdog", "run")] == [None] * 5
    assert found["problems"] == {}


@pytest.mark.parametrize(
    ("name", "content", "part", "said"),
    [
        ("state.json", "{", "record", "state.json"),
        ("state.json", {"version": 2}, "record", "version 2"),
        ("gate.json", {"version": 1}, "gate", "gate.json"),
        ("watchdog/verdict.json", VERDICT | {"findings": [{"kind": "x"}]}, "watchdog", "findings[0]"),
        ("watchdog/verdict.json", VERDICT | {"version": 9}, "watchdog", "version 9"),
        ("watchdog/verdict.json", "x" * (look.LARGEST + 1), "watchdog", "seen more"),
        ("proc/meminfo", "", "memory", "MemTotal"),
    ],
)
def test_a_part_that_cannot_be_read_says_why_and_keeps_the_others(
    host: Path, name: str, content: Any, part: str, said: str
) -> None:
    put(host, name, content)
    found = seen(host)
    assert found[part] is None and list(found["problems"]) == [part]
    assert said in found["problems"][part] or said == "state.json"
    assert found["gpu"]


def test_a_server_that_is_away_is_a_problem_of_the_server_alone(host: Path) -> None:
    with serving() as port:
        pass
    put(host, "state.json", {"version": 1, "current": entry(port), "last_good": entry(port)})
    found = seen(host)
    assert found["server"] is None and "/metrics" in found["problems"]["server"]
    assert found["record"]["before"] == {"recipe": "r", "image": "v@sha256:" + "a" * 64}


def test_a_gpu_that_does_not_answer_is_a_problem(host: Path) -> None:
    def broken(argv: Sequence[str], timeout: float) -> str:
        raise ProbeError("nvidia-smi took more than 5 s")

    assert seen(host, broken)["problems"] == {"gpu": "nvidia-smi took more than 5 s"}


def test_a_driver_that_does_not_say_why_it_slows_down_tells_the_rest(host: Path) -> None:
    def older(argv: Sequence[str], timeout: float) -> str:
        if "throttle" in argv[1]:
            raise ProbeError("nvidia-smi exited 2")
        return GPU

    found = seen(host, older)
    assert found["problems"] == {} and found["gpu"]["temperature"] == 71.0 and found["gpu"]["slowed_by"] == []


def test_what_a_gpu_does_not_tell_is_none(host: Path) -> None:
    found = seen(host, lambda argv, timeout: "0, [N/A], 50, [N/A], x\n")
    assert found["gpu"] == {
        "utilisation": None, "power": None, "temperature": 50.0, "clock": None, "slowed_by": [],
    }  # fmt: skip


def test_a_run_at_work_is_seen(host: Path) -> None:
    lock = {
        "version": 1, "run": "a", "holder": "me@c", "controller": "c", "since": "2026-11-30T20:00:00Z", "playbook": "site.yml",
        "pid": 1, "lease": 120,
    }  # fmt: skip
    put(host, "run.json", lock)
    assert seen(host)["run"] == {
        "holder": "me@c",
        "playbook": "site.yml",
        "since": "2026-11-30T20:00:00Z",
    }


def test_over_a_restart_there_is_no_rate_and_without_drafts_no_acceptance() -> None:
    first = Counters(generated=100, process_start=1.0)
    found = look.counted(first, Counters(generated=5, process_start=2.0), 2.0)
    assert found["tokens_per_second"] is None
    assert found["acceptance_rate"] is None and found["first_token_seconds"] is None
    assert look.counted(first, Counters(generated=140, process_start=1.0), 2.0)["tokens_per_second"] == 20.0


def test_limits_of_a_record_that_are_no_numbers_are_none() -> None:
    found = look.of_entry(entry(1, acceptance_floor="high", minimum_drafts=True, base_url=5))
    assert (found["floor"], found["minimum_drafts"], found["base_url"]) == (None, None, None)
