"""One host whose facts have another shape keeps no report from the others: each leaf of good facts is broken, one at a time."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.action import (
    bench_report,
    drift_report,
    fleet_report,
    prune_report,
    status_report,
    sync_report,
)
from ansible_collections.sparkfleet.vllm.plugins.module_utils._drift.finding import SUBJECTS, Finding, part
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.report import base
from helpers import status, sweep
from helpers.reports import Reports

INF, NAN = float("inf"), float("nan")
HUGE = "x" * 200_000
WRONG: tuple[Any, ...] = (None, "\ud800", HUGE, INF, NAN, -1, [], {}, [5], {"strange": [None]})
FINDING = Finding("container", "argument", "--port 8000", "--port 8001", "do it")
DRIFT = {
    "vllm_serve": part(
        SUBJECTS,
        [FINDING],
        {"server": "it starts"},
        {
            "versions": {"driver": "580.1", "kernel": "6.11"},
            "passed_on": {"driver": "580.0"},
            "container": {"started_at": "2026-11-24T00:00:00Z"},
            "speculation": {"drafts": 236, "acceptance_rate": 0.69},
        },
    )
}
HELD = {"r": part(SUBJECTS, [], {}, {"held": {"holder": "me", "since": "2026", "playbook": "site.yml"}})}
GATE = {
    "verdict": "pass", "drafts": 236, "acceptance_rate": 0.69, "decode_tokens_per_second": 52.6, "files": [{"md5": "m"}],
    "passed_at": 1764000071.6, "ready_at": 1764000060.0, "container": {"started_at": "2025-11-24T16:00:01Z"},
}  # fmt: skip
FLEET = {
    "recipe_lock": {"image": {"digest": "sha256:a"}, "models": {"body": {"commit": "b"}}, "patches": [{"md5": "m"}]},
    "spark_gate": GATE,
    "spark_served": {"models": {"body": {"path": "/m/b"}}, "container": {"image": "i@sha256:9"}},
    "spark_change": {"state": "replace"},
    "spark_started": {"stopped_at": 1764000000.0},
    "spark_rollback": {"passed": True, "outcome": "back"},
    "spark_failure": {"task": "t", "msg": "m", "diagnosis": "d"},
}  # fmt: skip
PRUNED = {
    "things": [
        {"kind": "patch", "name": "p", "bytes": 1, "at_most": False, "verdict": "removed", "why": "w"}
    ],
    "freed_bytes": 1,
    "freed_at_most": False,
}
KNOWN = {
    "snapshots": {"c": {"missing": 10}}, "hub_bytes": 5, "from": {"one": 5}, "to": {"one": 1}, "seconds": 4.0,
    "remarks": ["r"], "excluded": "", "repaired": False,
}  # fmt: skip
STATUS = {
    "__status_look": {
        "look": status.now(
            run=status.RUN, watchdog={"findings": [status.finding("memory")], "restarts": [status.AT - 9]}
        )
    }
}
PLANNED = {"problem": "", "fetch": [], "receive": [], "later": [], "seed": []}

Place = tuple[Any, ...]


def places(value: Any, at: Place = ()) -> Iterator[Place]:
    """Where something is in data; of a list, its first entry."""
    if at:
        yield at
    inner = (
        value.items()
        if isinstance(value, dict)
        else list(enumerate(value))[:1]
        if isinstance(value, list)
        else ()
    )
    for key, entry in inner:
        yield from places(entry, (*at, key))


def broken(value: Any) -> Iterator[tuple[str, Any]]:
    """(what was done, data) with one thing wrong in it."""
    for at in places(value):
        for wrong in WRONG:
            other = copy.deepcopy(value)
            _holder(other, at)[at[-1]] = wrong
            yield f"{at} is {str(wrong)[:20]!r}", other
        other = copy.deepcopy(value)
        del _holder(other, at)[at[-1]]
        yield f"{at} is missing", other
        if isinstance(found := _holder(value, at)[at[-1]], dict):
            other = copy.deepcopy(value)
            _holder(other, at)[at[-1]] = {**found, "strange": [None]}
            yield f"{at} has a strange key", other


def _holder(value: Any, at: Place) -> Any:
    for key in at[:-1]:
        value = value[key]
    return value


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> Reports:
    monkeypatch.setattr(base, "LARGEST", 100_000)
    monkeypatch.setattr(base, "now", lambda: "2026-11-24T04:00:00Z")
    return Reports(monkeypatch)


def hosts_of(result: dict[str, Any]) -> Any:
    return result["report"]["hosts"]["one"]


def rows_of(result: dict[str, Any]) -> Any:
    return [row for row in result["rows"] if row["host"] == "one"]


@pytest.mark.parametrize(
    ("action", "facts", "own"),
    [
        (drift_report, {"spark_drift": DRIFT}, hosts_of),
        (drift_report, {"spark_drift": HELD}, hosts_of),
        (drift_report, {"spark_failure": {"task": "t", "msg": "m"}}, hosts_of),
        (fleet_report, FLEET, rows_of),
        (prune_report, {"spark_pruned": PRUNED}, rows_of),
        (prune_report, {"spark_failure": {"task": "t", "msg": "m"} | PRUNED}, rows_of),
        (status_report, STATUS, hosts_of),
        (status_report, {"__status_look": {"look": status.now(problems={"gpu": "absent"})}}, hosts_of),
        (bench_report, {"spark_sweep": sweep.fleet()["spark-1"]["sweep"]}, hosts_of),
    ],
    ids=["drift", "held", "drift failed", "fleet", "prune", "prune failed", "status held", "status", "bench"],
)
def test_a_host_of_another_shape_keeps_the_report_from_nobody(
    reports: Reports, tmp_path: Path, action: ModuleType, facts: dict[str, Any], own: Callable[[Any], Any]
) -> None:
    given: dict[str, Any] = (
        {"directory": str(tmp_path)} if action in (drift_report, bench_report, status_report) else {}
    )
    good = reports.run(action, {"one": facts, "two": facts}, **given)
    # A sweep has many leaves, and each report of one draws intervals: every 23rd is broken, so each wrong value somewhere.
    every = 23 if action is bench_report else 1
    count = 0
    for what, other in itertools.islice(broken(facts), 0, None, every):
        result = reports.run(action, {"one": facts, "two": other}, **given)
        assert own(result) == own(good), what
        json.dumps(result, allow_nan=False)
        count += 1
    assert count > 20


def test_neither_does_one_in_a_sync(reports: Reports) -> None:
    plan = {"hosts": {"one": PLANNED, "two": PLANNED}}
    good = reports.run(
        sync_report, {"one": {}, "two": {}}, plan=plan | {"fleet": {"one": KNOWN, "two": KNOWN}}
    )
    for what, other in broken(KNOWN):
        result = reports.run(
            sync_report, {"one": {}, "two": {}}, plan=plan | {"fleet": {"one": KNOWN, "two": other}}
        )
        assert rows_of(result) == rows_of(good), what
        assert any(line.startswith("two ") for line in reports.said), what


def test_the_host_itself_says_what_is_wrong(reports: Reports, tmp_path: Path) -> None:
    strange = {"r": part(SUBJECTS, [Finding("nowhere", "k", "e", "s", "d")])}
    hosts = {"one": {"spark_drift": DRIFT}, "two": {"spark_drift": strange}}
    result = reports.run(drift_report, hosts, directory=str(tmp_path))
    two = result["report"]["hosts"]["two"]
    assert two["verdict"] == "unknown" and "two" in result["refused"]
    assert two["reason"].startswith(
        "what the host handed on cannot be shown: expected facts as the modules give them, seen ValueError"
    )
    assert "do: run again" in two["reason"]
    row = reports.run(fleet_report, {"one": FLEET, "two": FLEET | {"spark_gate": [5]}})["rows"][1]
    assert row["verdict"] == "FAILED: what the host handed on cannot be shown"


def test_a_text_without_end_fills_no_screen(reports: Reports, tmp_path: Path) -> None:
    long = "x " * 20_000
    reports.run(fleet_report, {"one": FLEET, "two": FLEET | {"spark_failure": {"task": long}}})
    assert max(map(len, reports.said)) < 2_000
    drift = {"r": part(SUBJECTS, [Finding("container", "k", "e", long, "d")])}
    reports.run(
        drift_report, {"one": {"spark_drift": DRIFT}, "two": {"spark_drift": drift}}, directory=str(tmp_path)
    )
    assert len(reports.said) < 200
