# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""status.yml on the lab's fleet: what it shows is what is there, and it changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fleet import SCENARIO, SPARKS
from testing import PLAYBOOKS, on, play, until

pytestmark = pytest.mark.usefixtures("serving")
SERIES = ("tokens_per_second", "waiting", "kv_cache_usage", "memory_available")
"""Those of the day that a Spark has without a request."""


def status(folder: Path, *options: str, check: bool = True) -> dict[str, Any]:
    done = play(PLAYBOOKS / "status.yml", SCENARIO / "inventory", *options, status_output=str(folder))
    assert not check or done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads((folder / "status.json").read_text())
    return found | {"output": done.stdout}


def seen(spark: str, part: str) -> Any:
    """A file of the state directory."""
    return json.loads(on(spark, f"cat /var/lib/sparkfleet/{part}"))


@pytest.fixture
def made(serving: None, tmp_path: Path) -> dict[str, Any]:
    """The report of a fleet that serves, once Prometheus has seen it."""

    def whole() -> dict[str, Any] | None:
        found = status(tmp_path)
        days = [host["day"] for host in found["hosts"].values()]
        return found if all(set(SERIES) <= set(day) for day in days) else None

    return until(whole, within=180, every=10) or {}


def test_every_spark_serves_and_has_a_day(made: dict[str, Any]) -> None:
    assert list(made["hosts"]) == SPARKS
    assert made["monitoring"]["host"] and made["monitoring"]["problem"] == ""
    for name, host in made["hosts"].items():
        now = host["now"]
        assert host["verdict"] in ("well", "warning"), (name, host["reasons"])
        assert now["record"]["recipe"] == seen(name, "state.json")["current"]["serving"]["recipe"]
        assert now["gate"]["drafts"] == seen(name, "gate.json")["drafts"]
        assert now["watchdog"]["mode"] == seen(name, "watchdog/verdict.json")["mode"]
        assert now["gate"]["drafts"] > 0 and now["server"]["started"] > 0
        assert now["memory"]["total"] > 0
        assert now["gpu"]["temperature"] is not None
        assert any(value is not None for value in host["day"]["memory_available"])


def test_the_table_has_a_row_for_each_and_the_page_a_chart_for_each_series(
    made: dict[str, Any], tmp_path: Path
) -> None:
    assert all(f"\n{name} " in made["output"] for name in SPARKS)
    assert " changed=0 " in made["output"] and "changed=1" not in made["output"]
    page = (tmp_path / "status.html").read_text()
    assert page.count("<svg") >= len(SERIES) * len(SPARKS) and "<script" not in page


@pytest.mark.long
def test_a_spark_without_a_network_is_in_the_report(tmp_path: Path) -> None:
    on("watch-2", "systemctl stop ssh; pkill -x sshd || true")
    try:
        found = status(tmp_path, check=False)
    finally:
        on("watch-2", "systemctl start ssh")
    assert found["hosts"]["watch-2"]["verdict"] == "unseen"
    assert found["hosts"]["watch-2"]["reasons"][0].startswith("the host did not answer")
    assert found["hosts"]["watch-1"]["now"]
    assert found["hosts"]["watch-2"]["day"], "its day is there all the same"


@pytest.mark.long
def test_a_limited_run_and_a_check_run_look_too(tmp_path: Path) -> None:
    found = status(tmp_path, "--limit=watch-1", "--check")
    assert list(found["hosts"]) == ["watch-1"] and found["hosts"]["watch-1"]["day"]
