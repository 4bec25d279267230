"""What a drift report says of the watchdog of a Spark: of a good one nothing, and each edit under its own name."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._drift import watchdog
from ansible_collections.sparkfleet.vllm.plugins.module_utils._drift.finding import Finding
from ansible_collections.sparkfleet.vllm.plugins.module_utils._drift.watchdog import Seen
from ansible_collections.sparkfleet.vllm.plugins.module_utils._serve import watched
from ansible_collections.sparkfleet.vllm.plugins.module_utils._watchdog import install, plan, units

PLAN = plan.given({"mode": "act", "agent_address": "192.0.2.7", "api_key": "k"})
WANTED, NOW = PLAN.after, 1_000_000.0
FOUND = {
    "kind": "acceptance",
    "severity": "tell",
    "since": NOW,
    "expected": "0.40",
    "seen": "0.1",
    "do": "verify",
}


def verdict(**given: Any) -> dict[str, Any]:
    made = {
        "version": 1,
        "looked_at": NOW - 20,
        "verdict": "well",
        "reason": "makes tokens",
        "findings": [],
        "mode": "act",
        "speculation": None,
        "restarts": [],
        "agent": "up",
    } | given
    return watched.parse(json.dumps(made))


GOOD = Seen(WANTED, verdict=verdict(), now=NOW)


def found(seen: Seen, wanted: install.State = WANTED) -> list[Finding]:
    return list(watchdog.findings(wanted, seen))


def test_a_good_one_and_none_where_none_should_be_have_no_findings() -> None:
    assert found(GOOD) == []
    off = plan.given({"mode": "off"}).after
    assert found(Seen(now=NOW), off) == []


@pytest.mark.parametrize(
    ("state", "kind", "seen"),
    [
        (replace(WANTED, settings="{}"), "watchdog-changed", "settings"),
        (replace(WANTED, key=b"other"), "watchdog-changed", "key"),
        (replace(WANTED, program="damaged"), "watchdog-changed", "program"),
        (replace(WANTED, units={**WANTED.units, units.TIMER: "[Timer]"}), "watchdog-changed", units.TIMER),
        (replace(WANTED, active=frozenset({units.SOCKET})), "watchdog-stopped", "stopped or disabled"),
        (replace(WANTED, active=frozenset({units.TIMER})), "watchdog-stopped", "stopped or disabled"),
    ],
)
def test_an_edit_is_one_finding(state: install.State, kind: str, seen: str) -> None:
    """A timer that stands still is silent, too, and that is not said besides."""
    (finding,) = found(replace(GOOD, state=state))
    assert (finding.subject, finding.kind, finding.seen, finding.severity) == (
        "watchdog",
        kind,
        seen,
        "drift",
    )
    assert "site.yml" in finding.do


def test_where_nothing_is_there_all_of_it_is_one_finding() -> None:
    (finding,) = found(Seen(now=NOW, problem="No such file"))
    assert finding.kind == "watchdog-changed"
    assert finding.seen == ", ".join(["program", "settings", "key", *units.ALL])


def test_what_changes_a_unit_is_named() -> None:
    path = f"/etc/systemd/system/{units.TIMER}.d/override.conf"
    (finding,) = found(replace(GOOD, drop_ins=[path]))
    assert (finding.kind, finding.seen) == ("watchdog-changed", path)
    assert "systemctl revert" in finding.do


def test_another_mode_is_another_watchdog() -> None:
    observes = plan.given({"mode": "observe", "agent_address": "192.0.2.7", "api_key": "k"}).after
    (finding,) = found(GOOD, observes)
    assert (finding.kind, finding.seen) == ("watchdog-changed", "settings")


def test_one_that_should_be_gone_is_left() -> None:
    off = plan.given({"mode": "off"}).after
    (finding,) = found(GOOD, off)
    assert finding.kind == "watchdog-left"
    assert units.TIMER in finding.seen
    (finding,) = found(Seen(install.State(leftovers=True), now=NOW), off)
    assert (finding.kind, finding.seen) == ("watchdog-left", "evidence")


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({"verdict": verdict(looked_at=NOW - 301)}, "the last look was 301 s ago"),
        ({"verdict": verdict(looked_at=NOW + 400)}, "the last look was -400 s ago"),
        ({"verdict": None, "problem": "No such file"}, "no look: No such file"),
    ],
)
def test_one_that_does_not_look_is_silent(change: dict[str, Any], seen: str) -> None:
    (finding,) = found(replace(GOOD, **change))
    assert (finding.kind, finding.seen) == ("watchdog-silent", seen)


def test_what_a_silent_one_said_last_is_not_told_as_news() -> None:
    old = verdict(looked_at=NOW - 301, findings=[FOUND], verdict="bad")
    assert [each.kind for each in found(replace(GOOD, verdict=old))] == ["watchdog-silent"]


def test_a_server_that_it_keeps_down_is_drift_however_old_the_look() -> None:
    down = {"verdict": "down", "reason": "restarted too often"}
    (finding,) = found(replace(GOOD, verdict=verdict(**down, findings=[FOUND])))
    assert (finding.kind, finding.seen, finding.severity) == ("watchdog-down", "restarted too often", "drift")
    assert "systemctl" not in finding.seen and "site.yml" in finding.do
    old = found(replace(GOOD, verdict=verdict(**down, looked_at=0)))
    assert [each.kind for each in old] == ["watchdog-silent", "watchdog-down"]


def test_what_it_found_last_is_a_warning() -> None:
    (finding,) = found(replace(GOOD, verdict=verdict(verdict="bad", findings=[FOUND])))
    assert (finding.kind, finding.severity) == ("watchdog-found", "warning")
    assert (finding.expected, finding.seen, finding.do) == ("0.40", "acceptance: 0.1", "verify")


def test_a_look_that_came_to_nothing_is_a_warning() -> None:
    (finding,) = found(replace(GOOD, verdict=verdict(verdict="unknown", reason="docker does not answer")))
    assert (finding.kind, finding.seen) == ("watchdog-found", "docker does not answer")


def test_a_report_takes_over_a_bounded_share_of_a_verdict() -> None:
    many = verdict(findings=[FOUND | {"seen": "x" * 1_000}] * 100)
    told = found(replace(GOOD, verdict=many))
    assert len(told) == watchdog.MOST
    assert max(len(each.seen) for each in told) == watchdog.LONGEST
