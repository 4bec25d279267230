"""The fronts of the reports: which hosts are in one, what is told of those that were lost, and what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible_collections.sparkfleet.vllm.plugins.action import (
    drift_report,
    fleet_report,
    prune_report,
    sync_report,
)
from helpers.reports import Reports

FAILED = {"task": "Measure", "msg": "no drafts", "diagnosis": "no_drafts"}


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> Reports:
    return Reports(monkeypatch)


def test_the_fleet_has_a_row_for_every_host_also_for_one_that_was_lost(reports: Reports) -> None:
    hosts: dict[str, dict[str, Any]] = {
        "one": {"spark_gate": {"verdict": "pass", "drafts": 604}},
        "two": {"spark_failure": FAILED},
        "three": {"spark_gate": {"verdict": "pass"}},
    }
    result = reports.run(fleet_report, hosts, lost="three")
    assert result["changed"] is False
    assert [(row["host"], row["verdict"]) for row in result["rows"]] == [
        ("one", "pass"),
        ("two", "FAILED: no_drafts"),
        ("three", "FAILED: the host did not answer"),
    ]
    assert result["ansible_stats"]["data"] == {
        "sparkfleet_passed": ["one"],
        "sparkfleet_failed": ["two", "three"],
    }
    assert [line.partition(" ")[0] for line in reports.said] == [
        "",
        "host",
        "-----",
        "one",
        "two",
        "three",
        "",
    ]


def test_prune_tells_how_far_a_host_got_that_failed(reports: Reports) -> None:
    thing = {
        "kind": "patch",
        "name": "p.py",
        "bytes": 1000,
        "at_most": False,
        "verdict": "removed",
        "why": "nothing refers to it",
    }
    pruned = {"things": [thing], "freed_bytes": 1000}
    hosts: dict[str, dict[str, Any]] = {
        "one": {"spark_pruned": pruned},
        "two": {"spark_failure": {"task": "Remove", "msg": "disk"} | pruned},
        "three": {},
    }
    rows = reports.run(prune_report, hosts, lost="three", check=True)["rows"]
    went = {row["host"] for row in rows if row["what"] == "patch" and row["verdict"] == "would go"}
    assert went == {"one", "two"}
    assert any(row["host"] == "three" and "the host did not answer" in row["why"] for row in rows)


def test_a_sync_shows_its_plan(reports: Reports) -> None:
    result = reports.run(sync_report, {"one": {}}, plan={"fleet": {}, "hosts": {}})
    assert [row["state"] for row in result["rows"]] == ["took no part"]
    assert "took no part" in reports.said[3]


def test_drift_tells_of_a_host_that_was_lost_and_of_one_that_never_answered(
    reports: Reports, tmp_path: Path
) -> None:
    hosts: dict[str, dict[str, Any]] = {
        "one": {"spark_drift": {"unreachable": "timed out"}},
        "two": {"spark_failure": {"task": "Look", "msg": "no engine"}},
        "three": {"spark_drift": {"container": {}}},
    }
    result = reports.run(drift_report, hosts, lost="three", directory=str(tmp_path / "new"))
    assert result["refused"] == {
        "one": "the host did not answer: timed out",
        "two": "Look: no engine",
        "three": "the host did not answer",
    }
    assert result["ansible_stats"]["data"] == {"sparkfleet_drifted": ["one", "two", "three"]}
    assert result["files"] == [str(tmp_path / f"new/drift.{kind}") for kind in ("json", "html", "prom")]
    assert json.loads((tmp_path / "new/drift.json").read_text()) == json.loads(json.dumps(result["report"]))
    assert reports.said[-2] == f"written: {', '.join(result['files'])}"


def test_a_directory_that_cannot_be_written_is_told_with_its_option(reports: Reports, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AnsibleActionFail, match=r"expected a directory .* do: set drift_output"):
        reports.run(drift_report, {}, directory=str(tmp_path / "file"))


@pytest.mark.parametrize("action", [fleet_report, prune_report])
def test_what_takes_no_options_says_so(reports: Reports, action: Any) -> None:
    with pytest.raises(AnsibleError, match="colour"):
        reports.run(action, {}, colour="red")
