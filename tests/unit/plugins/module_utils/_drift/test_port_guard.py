"""Findings about the rules of a port: which, with what was seen, and none where all is as it should be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._drift import port_guard as drift
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host import guard, port_guard
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host.guard import Guard

SOURCES = ["192.0.2.10", "192.0.2.11"]
LINES = port_guard.rules([8000], guard.sources(SOURCES)[4])
FILE = Path("/etc/sparkfleet/port-guard/rules.v4")
WANTED = Guard({4: LINES}, {FILE: "rules"}, "enabled", "active")


def found(seen: Guard, wanted: Guard = WANTED, ports: tuple[int, ...] = (8000,)) -> list[dict[str, Any]]:
    part = drift.judge([(ports, SOURCES)] if ports else [], seen, wanted)
    assert part["subjects"] == ["host"]
    findings: list[dict[str, Any]] = part["findings"]
    return findings


def test_rules_as_they_should_be_are_no_finding() -> None:
    assert found(WANTED) == []
    assert found(Guard({4: ()}), Guard({4: ()}), ports=()) == []


@pytest.mark.parametrize("there", [(), LINES[:2], LINES[:-1], (LINES[0], *LINES[2:])])
def test_a_port_that_nothing_keeps_is_open(there: tuple[str, ...]) -> None:
    (finding,) = found(replace(WANTED, rules={4: there}))
    assert (finding["subject"], finding["kind"], finding["severity"]) == ("host", "port-open", "drift")
    assert finding["expected"] == "port 8000 for 192.0.2.10, 192.0.2.11 alone"
    assert finding["seen"] == "no rule of iptables that keeps others out"
    assert "playbooks/site.yml" in finding["do"]


def test_other_rules_are_shown_and_so_are_those_that_are_missing() -> None:
    more = "-A SPARKFLEET -s 198.51.100.0/24 -j RETURN"
    (finding,) = found(replace(WANTED, rules={4: (*LINES[:3], more, *LINES[4:])}))
    assert finding["kind"] == "port-guard-changed"
    assert finding["seen"] == f"{more}; without -A SPARKFLEET -s 192.0.2.10/32 -j RETURN"
    (finding,) = found(replace(WANTED, rules={4: (*LINES[:3], LINES[4], LINES[3], *LINES[5:])}))
    assert finding["seen"] == "the rules in another order"


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (replace(WANTED, files={}), f"{FILE} is missing"),
        (replace(WANTED, files={FILE: "x"}), f"{FILE} holds something else"),
        (replace(WANTED, enabled="disabled"), "sparkfleet-port-guard.service is disabled, active"),
        (replace(WANTED, enabled="", active=""), "sparkfleet-port-guard.service is not there"),
    ],
)
def test_what_does_not_come_back_at_boot_is_a_finding(seen: Guard, said: str) -> None:
    (finding,) = found(seen)
    assert (finding["kind"], finding["seen"]) == ("port-guard-boot", said)


def test_rules_that_no_gateway_needs_are_a_finding() -> None:
    (finding,) = found(WANTED, Guard({4: ()}), ports=())
    assert (finding["kind"], finding["seen"]) == ("port-guard-left", f"rules of iptables, {FILE}")
