"""Findings about the ports of a unit: which, with what was seen, and none where all is as it should be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._drift import unit_guard as drift
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host import unit_guard
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host.guard import Guard
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host.unit_guard import HOOK, TABLE

MEMBERS = ["192.0.2.11", "192.0.2.12"]
LINES = unit_guard.rules(unit_guard.members(MEMBERS), [(8622, 8622)])
FILE = Path("/etc/sparkfleet/unit-guard/rules.nft")
WANTED = Guard({TABLE: LINES}, {FILE: "rules"}, "enabled", "active")
NOTHING = Guard({TABLE: ()})


def found(seen: Guard, wanted: Guard = WANTED) -> list[dict[str, Any]]:
    part = drift.judge(MEMBERS if wanted is WANTED else [], seen, wanted)
    assert part["subjects"] == ["host"]
    findings: list[dict[str, Any]] = part["findings"]
    return findings


def test_rules_as_they_should_be_are_no_finding() -> None:
    assert found(WANTED) == []
    assert found(NOTHING, NOTHING) == []


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ((), f"no table {TABLE}"),
        (LINES[:3], f"without {HOOK}; {LINES[-1]}"),
        (LINES[:-1], f"without {LINES[-1]}"),
        (tuple(line for line in LINES if line != HOOK), f"without {HOOK}"),
    ],
)
def test_ports_that_nothing_keeps_are_open(there: tuple[str, ...], said: str) -> None:
    (finding,) = found(replace(WANTED, rules={TABLE: there}))
    assert (finding["subject"], finding["kind"], finding["severity"]) == ("host", "unit-guard-open", "drift")
    assert finding["expected"] == "the ports of the unit for 192.0.2.11, 192.0.2.12 alone"
    assert finding["seen"] == f"{said}: whoever reaches them runs code"
    assert "playbooks/site.yml" in finding["do"]


def test_other_rules_are_shown_and_so_are_those_that_are_missing() -> None:
    more = f"add rule {TABLE} input ip saddr 198.51.100.7 accept"
    (finding,) = found(replace(WANTED, rules={TABLE: (*LINES[:4], more, *LINES[5:])}))
    assert (finding["kind"], finding["seen"]) == ("unit-guard-changed", f"{more}; without {LINES[4]}")
    (finding,) = found(replace(WANTED, rules={TABLE: (*LINES[:4], LINES[5], LINES[4], *LINES[6:])}))
    assert finding["seen"] == "the rules in another order"


def test_what_does_not_come_back_at_boot_is_a_finding() -> None:
    (finding,) = found(replace(WANTED, files={}, enabled="", active=""))
    assert finding["kind"] == "unit-guard-boot"
    assert finding["seen"] == f"{FILE} is missing; sparkfleet-unit-guard.service is not there"


@pytest.mark.parametrize(
    ("seen", "said"),
    [(WANTED, f"table {TABLE}, {FILE}"), (replace(WANTED, files={}), f"table {TABLE}"), (replace(WANTED, rules={TABLE: ()}), str(FILE))],
)  # fmt: skip
def test_rules_of_a_unit_that_the_host_has_left_are_a_finding(seen: Guard, said: str) -> None:
    (finding,) = found(seen, NOTHING)
    assert (finding["kind"], finding["seen"]) == ("unit-guard-left", said)
