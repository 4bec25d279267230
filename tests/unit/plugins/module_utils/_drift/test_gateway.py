"""Findings about a gateway: which, with what was seen, none where all is as it should be, and nothing of any file's content."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._drift import gateway as drift
from ansible_collections.sparkfleet.vllm.plugins.module_utils._drift.gateway import Seen, Wanted
from ansible_collections.sparkfleet.vllm.plugins.module_utils._gateway.answers import (
    DRAINED,
    MAINTENANCE,
    READY,
    Server,
)
from ansible_collections.sparkfleet.vllm.plugins.module_utils._gateway.file_set import PUBLIC, SECRET, File
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host.unit import Unit

UNIT = "sparkfleet-gateway.service"
FILES = {"haproxy.cfg": File(b"one\ntwo\nthree\n", PUBLIC, 7), "tls.pem": File(b"SECRET\nKEY\n", SECRET, 0)}
WANTED = Wanted("/etc/gw", FILES, {"/etc/unit": "text"}, [UNIT], ["/etc/left"])
RUNS = Unit(text="text", enabled="enabled", active="active")
SERVER = Server("chat", "spark-1", READY, up=True)
GOOD = Seen(True, FILES, {"/etc/unit": "text"}, {UNIT: RUNS}, servers=[SERVER])


def found(seen: Seen) -> list[dict[str, Any]]:
    part = drift.judge(WANTED, seen)
    assert part["subjects"] == ["gateway"] and part["unknown"] == {}
    assert all(finding["subject"] == "gateway" for finding in part["findings"])
    findings: list[dict[str, Any]] = part["findings"]
    return findings


def test_a_gateway_as_it_should_be_is_no_finding() -> None:
    assert found(GOOD) == []


@pytest.mark.parametrize(
    ("files", "expected", "seen"),
    [
        ({"haproxy.cfg": File(b"one\n2\nthree\n", PUBLIC, 7)}, "/etc/gw/haproxy.cfg as", "another content, from line 2 on"),
        ({"haproxy.cfg": File(b"one\ntwo\nthree\nmore", PUBLIC, 7)}, "/etc/gw/haproxy.cfg as", "from line 4 on"),
        ({"haproxy.cfg": File(b"one", PUBLIC, 7)}, "/etc/gw/haproxy.cfg as", "from line 2 on"),
        ({"haproxy.cfg": replace(FILES["haproxy.cfg"], mode=0o644)}, "/etc/gw/haproxy.cfg as", "mode 0644, expected 0640"),
        ({"haproxy.cfg": replace(FILES["haproxy.cfg"], group=0)}, "/etc/gw/haproxy.cfg as", "group 0, expected 7"),
        ({"tls.pem": File(b"OTHER\nKEY\n", SECRET, 0)}, "/etc/gw/tls.pem as", "another content"),
        ({"tls.pem": None}, "/etc/gw/tls.pem as", "not there"),
        ({"more": File(b"", PUBLIC, 7)}, "no /etc/gw/more", "none of the gateway's"),
    ],
)  # fmt: skip
def test_a_file_that_differs(files: dict[str, File | None], expected: str, seen: str) -> None:
    there = {name: file for name, file in {**FILES, **files}.items() if file}
    (finding,) = found(replace(GOOD, files=there))
    assert (finding["kind"], finding["severity"]) == ("gateway-file", "drift")
    assert expected in finding["expected"] and finding["seen"].endswith(seen)
    assert "playbooks/gateway.yml" in finding["do"]
    shown = json.dumps(finding)
    assert not any(word in shown for word in ("SECRET", "KEY", "OTHER", "three"))
    assert "tls.pem" not in finding["expected"] or "line" not in finding["seen"]


@pytest.mark.parametrize(
    ("change", "kind", "seen"),
    [
        ({"texts": {"/etc/unit": "other"}}, "gateway-file", "another content"),
        ({"texts": {}}, "gateway-file", "not there"),
        ({"left": ["/etc/left"]}, "gateway-file", "it is there"),
        ({"services": {UNIT: replace(RUNS, drop_ins=("/etc/u.d/o.conf",))}}, "gateway-file", "/etc/u.d/o.conf"),
        ({"services": {UNIT: replace(RUNS, active="failed")}}, "gateway-stopped", "it is failed"),
        ({"services": {UNIT: replace(RUNS, enabled="disabled")}}, "gateway-boot", "it is disabled"),
    ],
)  # fmt: skip
def test_what_else_differs(change: dict[str, Any], kind: str, seen: str) -> None:
    (finding,) = found(replace(GOOD, **change))
    assert (finding["kind"], finding["seen"], finding["severity"]) == (kind, seen, "drift")


@pytest.mark.parametrize(
    ("server", "seen", "do"),
    [
        (replace(SERVER, state=DRAINED), "it is drained", "site.yml"),
        (
            replace(SERVER, state=MAINTENANCE),
            "it is in maintenance",
            "gateway_server name=spark-1 state=ready",
        ),
        (replace(SERVER, up=False), "it fails its checks", "look at spark-1"),
        (
            replace(SERVER, up=False, agent="down (wedged)"),
            "its watchdog says down (wedged)",
            "findings of spark-1 about its watchdog",
        ),
        (
            replace(SERVER, up=False, agent=""),
            "its watchdog said down, and is silent since",
            "findings of spark-1 about its watchdog",
        ),
    ],
)
def test_who_gets_no_requests_is_a_warning(server: Server, seen: str, do: str) -> None:
    (finding,) = found(replace(GOOD, servers=[SERVER, server]))
    assert (finding["kind"], finding["seen"], finding["severity"]) == ("server-out", seen, "warning")
    assert do in finding["do"]


def test_no_program_is_one_finding_and_not_all_that_comes_of_it() -> None:
    (finding,) = found(Seen(program=False))
    assert finding["kind"] == "gateway-missing"


def test_a_gateway_that_does_not_tell_is_not_judged_unless_it_stands_still() -> None:
    silent = replace(GOOD, servers=[], problem="no answer")
    assert drift.judge(WANTED, silent)["unknown"] == {"gateway": "no answer"}
    stopped = replace(silent, services={UNIT: replace(RUNS, active="inactive")})
    assert [finding["kind"] for finding in found(stopped)] == ["gateway-stopped"]


def test_a_run_at_work_is_handed_on() -> None:
    assert drift.judge(WANTED, replace(GOOD, held={"holder": "me"}))["known"] == {"held": {"holder": "me"}}
    assert drift.judge(WANTED, Seen(program=False, held={"holder": "me"}))["known"] == {
        "held": {"holder": "me"}
    }
