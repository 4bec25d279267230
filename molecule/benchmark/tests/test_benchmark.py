# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Speculation is measured, and whatever happens the host serves afterwards what it served, under an untouched record."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

SCENARIO = Path(__file__).parents[1]
PLAYBOOKS = SCENARIO.parents[1] / "playbooks"
LOOK = SCENARIO.parent / "rollout/files/look.py"
LOCK = SCENARIO / "lab-locks/stub.lock.yml"
HOSTS = ("sweep-1", "sweep-2")


def look(name: str) -> dict[str, Any]:
    """What serves and what is recorded, as the host has it, and its boot unit."""
    inside = ["docker", "exec", "--interactive", f"sparkfleet-lab-{name}"]
    done = subprocess.run(
        [*inside, "python3", "-", str(time.time())],
        input=LOOK.read_text(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    unit = subprocess.run(
        [*inside, "cat", "/etc/systemd/system/sparkfleet-vllm.service"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {**json.loads(done.stdout), "unit": unit.stdout}


def depth(seen: dict[str, Any]) -> int:
    """Tokens a step that the server was started with; -1 between two servers."""
    if seen["container"] is None:
        return -1
    argv = seen["container"]["spec"]["argv"]
    if "--speculative-config" not in argv:
        return 0
    return int(json.loads(argv[argv.index("--speculative-config") + 1])["num_speculative_tokens"])


def command(playbook: str, *options: str, **extra: Any) -> list[str]:
    return [
        str(Path(sys.executable).with_name("ansible-playbook")),
        str(PLAYBOOKS / f"{playbook}.yml"),
        f"--inventory={SCENARIO / 'inventory'}",
        f"--extra-vars={json.dumps(extra)}",
        *options,
    ]


def run(playbook: str, *options: str, fails: bool = False, **extra: Any) -> str:
    done = subprocess.run(
        command(playbook, *options, **extra), capture_output=True, text=True, check=False, timeout=900,
        env=os.environ | {"ANSIBLE_FORCE_COLOR": "0"},
    )  # fmt: skip
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    # A long line is folded where it is shown.
    return " ".join(done.stdout.split())


@pytest.fixture(autouse=True)
def serving() -> dict[str, dict[str, Any]]:
    """The hosts as they are before: each serves what is recorded."""
    if "speculation" in yaml.safe_load(LOCK.read_text()) or any(depth(look(name)) != 1 for name in HOSTS):
        run("lock", recipe_upstream="fail")
        lock = yaml.safe_load(LOCK.read_text())
        lock.pop("speculation", None)
        LOCK.write_text(yaml.safe_dump(lock, sort_keys=False))
        run("site")
    return {name: look(name) for name in HOSTS}


def left_as_found(before: dict[str, dict[str, Any]]) -> None:
    for name, was in before.items():
        now = look(name)
        assert (now["state"], now["recorded_at"], now["unit"]) == (
            was["state"],
            was["recorded_at"],
            was["unit"],
        )
        assert now["container"]["spec"] == was["container"]["spec"]
        assert now["container"]["status"] == "running"
        assert now["drafts"] and now["drafts"] >= 200, "proved by the gate, in this very process"


def sweeps(folder: Path, name: str) -> dict[str, Any]:
    report = json.loads((folder / f"{name}.json").read_text())
    return {host: report["hosts"][host]["sweep"] for host in HOSTS}


def states(sweep: dict[str, Any]) -> dict[int, str]:
    return {
        (each["speculation"] or {}).get("num_speculative_tokens", 0): each["state"]
        for each in sweep["candidates"]
    }


def test_off_against_on(serving: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    run("benchmark", benchmark_output=str(tmp_path))
    left_as_found(serving)
    for sweep in sweeps(tmp_path, "benchmark").values():
        assert states(sweep) == {1: "measured", 0: "measured"}
        on, off = (each["measurement"] for each in sweep["candidates"])
        assert [load["concurrency"] for load in on["loads"]] == [1, 2]
        assert on["loads"][0]["rates"] == pytest.approx([0.7], abs=0.02)
        assert off["loads"][0]["drafts"] == 0
        assert [load["rate"]["witnesses"] for load in on["loads"] + off["loads"]] == [2] * 4
        assert all(load["rate"]["tokens_per_second"] for load in on["loads"] + off["loads"])
        # Steps of 12 and 10 ms, 1.7 tokens and one: what a loaded machine adds is the same for both.
        ratio = on["loads"][0]["tokens_per_second"] / off["loads"][0]["tokens_per_second"]
        assert ratio == pytest.approx(1.7 / 1.2, rel=0.1)
    assert (tmp_path / "benchmark.html").exists() and (tmp_path / "benchmark.md").exists()


def test_a_candidate_that_dies_is_told_and_the_host_is_left_as_it_was(
    serving: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    candidates = [{"num_speculative_tokens": 9}, None]
    given: dict[str, Any] = {"speculation_sweep_concurrency": [1], "benchmark_candidates": candidates}
    run("benchmark", benchmark_output=str(tmp_path), **given)
    left_as_found(serving)
    for sweep in sweeps(tmp_path, "benchmark").values():
        assert states(sweep) == {9: "failed", 0: "measured"}
        assert "mat1 and mat2 shapes cannot be multiplied" in sweep["candidates"][0]["because"]


def test_check_mode_touches_nothing(serving: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    printed = run("tune", "--check", tune_output=str(tmp_path))
    assert "mtp n=1, which serves now" in printed and "mtp n=4" in printed
    for name, was in serving.items():
        assert look(name)["container"] == was["container"]
    left_as_found(serving)
    assert list(tmp_path.iterdir()) == []


def test_a_tune_stops_early_and_its_flag_writes_the_lock(
    serving: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    run("tune", tune_output=str(tmp_path), speculation_sweep_concurrency=[1])
    left_as_found(serving)
    assert "speculation" not in yaml.safe_load(LOCK.read_text())
    for sweep in sweeps(tmp_path, "tune").values():
        assert states(sweep) == {0: "measured", 1: "measured", 2: "measured", 3: "measured", 4: "skipped"}
        assert sweep["proposal"]["speculation"]["num_speculative_tokens"] == 2
    given: dict[str, Any] = {"speculation_sweep_concurrency": [1], "tune_depths": [0, 2], "tune_write": True}
    printed = run("tune", "--diff", tune_output=str(tmp_path), **given)
    left_as_found(serving)
    assert "+speculation.num_speculative_tokens: 2" in printed
    assert yaml.safe_load(LOCK.read_text())["speculation"]["num_speculative_tokens"] == 2
    run("site")
    for name in HOSTS:
        seen = look(name)
        assert depth(seen) == 2
        recorded = json.loads(seen["state"])["current"]
        assert recorded["serving"]["gate"]["speculation"]["num_speculative_tokens"] == 2
        assert recorded["gate"]["drafts"] >= 200
    # What was served is what is tuned from now on, and a new lock keeps it.
    run("lock")
    assert yaml.safe_load(LOCK.read_text())["speculation"]["num_speculative_tokens"] == 2


def until(condition: Callable[[], bool], within: float = 180) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.2)


def test_a_controller_that_is_killed_leaves_the_record_and_site_brings_back_what_is_recorded(
    serving: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    going = subprocess.Popen(
        command("benchmark", "--limit=sweep-1", benchmark_output=str(tmp_path), benchmark_candidates=[None]),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    until(lambda: depth(look("sweep-1")) == 0)
    os.killpg(going.pid, signal.SIGKILL)
    going.wait()
    left = look("sweep-1")
    assert left["state"] == serving["sweep-1"]["state"]
    assert "the container sparkfleet-vllm as it passed here last" in run(
        "benchmark", "--limit=sweep-1", fails=True, benchmark_output=str(tmp_path)
    )
    assert look("sweep-1")["container"]["id"] == left["container"]["id"], (
        "it is not touched before somebody has decided"
    )
    run("site")
    assert depth(look("sweep-1")) == 1
    left_as_found(serving)
