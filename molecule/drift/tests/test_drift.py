"""Edits of a host by hand: each is found under its name with what was expected and seen, and nothing else is.

What can lie side by side is edited at once and found by one run of the playbook. What cannot is edited, looked at and undone
one after the other, through the same entry points of the roles.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
import spark
from edits import AT_ONCE, ENVIRONMENT, HASHED, MODELS, NAME, ONE_BY_ONE, RESTARTED
from spark import Report, clean, drift, expect, on


def test_a_run_at_work_is_not_called_drift():
    held = {"version": 1, "run": "1", "holder": "me@controller", "controller": "", "since": "2026-11-24T04:00:00Z", "pid": 1, "lease": 120, "playbook": "site.yml"}  # fmt: skip
    on(f"docker stop -t 5 {NAME}; echo {json.dumps(json.dumps(held))} >/var/lib/sparkfleet/run.json")
    report = drift()
    on(f"rm /var/lib/sparkfleet/run.json; {RESTARTED}")
    assert report.host["verdict"] == "held" and not report.host["findings"]
    assert "me@controller is at work here since 2026-11-24T04:00:00Z" in report.output
    assert report.code == 2


def test_a_host_that_does_not_answer_is_in_the_report():
    report = drift(ansible_port=1)
    assert report.host["verdict"] == "unknown" and report.code == 2
    assert set(report.host["subjects"].values()) == {"unknown"}
    assert re.search(r"drifts .*the host did not answer", report.output)


@pytest.fixture(scope="module")
def looked() -> dict[str, Report]:
    """A report for each edit that has to be alone, by its name."""
    return spark.one_by_one(ONE_BY_ONE)


@pytest.mark.parametrize("edit", ONE_BY_ONE, ids=lambda edit: edit.name)
def test_an_edit_is_found_by_its_name_and_nothing_else_is(looked, edit):
    if edit.findings:
        expect(looked[edit.name], edit.findings)
    else:
        clean(looked[edit.name])


def test_what_serves_is_unknown_where_nothing_runs(looked):
    assert looked["stopped"].host["subjects"]["server"] == "unknown"


def test_what_no_recipe_speaks_of_is_a_warning(looked):
    assert looked["a neighbour on the GPU"].host["verdict"] == "warning"


def test_the_record_says_with_what_it_passed():
    passed = json.loads(on(f"cat {spark.STATE}"))["current"]["gate"]["host"]
    assert passed["driver"] == "580.95.05" and passed["engine"] and passed["toolkit"]


@pytest.fixture(scope="module")
def damaged() -> Iterator[None]:
    """Models that somebody has edited. The next run of site.yml mends them."""
    record = spark.recorded()
    on(MODELS.do(record))
    yield
    on(MODELS.undo(record))


@pytest.mark.usefixtures("damaged")
def test_all_that_can_be_edited_at_once():
    """And each is told under its own name."""
    digest = spark.recorded()["container"]["image"].partition("@")[2]
    with spark.side_by_side(AT_ONCE) as expected:
        report = drift()
    expect(report, [*expected, *MODELS.findings])
    assert report.code == 2
    assert report.says("image", digest)
    assert "hf_of_somebody" not in json.dumps(report.data) + report.page + report.output


@pytest.mark.usefixtures("damaged")
def test_every_byte_of_the_models_and_an_environment_of_the_modules_that_lost_a_package():
    with spark.side_by_side([ENVIRONMENT]) as expected:
        report = drift(drift_verify="full")
    expect(report, [*expected, *HASHED])
    assert report.code == 2
    assert {report.host["subjects"][name] for name in ("container", "server", "record")} == {"unknown"}
