# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Letting Sparks in again, and refusing to take the last one away, beside a stub of HAProxy's socket."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.sparkfleet.vllm.plugins.module_utils._gateway import haproxy, module
from ansible_collections.sparkfleet.vllm.plugins.modules import gateway_admit, gateway_outage
from helpers.haproxy_stub import Master, StubServer, serving

PLACE = {"name": "spark-2", "pool": "chat", "address": "192.0.2.1", "port": 8000}


def fleet(**states: StubServer) -> dict[str, StubServer]:
    servers = {f"chat/spark-{number}": StubServer() for number in range(1, 5)}
    return servers | {f"chat/{name.replace('_', '-')}": each for name, each in states.items()}


def drained() -> StubServer:
    return StubServer("drain", "UP")


def turns(*batches: list[str]) -> list[dict[str, list[str]]]:
    """Each is let in again before the next one is taken away."""
    return [{"taken": batch, "admitted": batch} for batch in batches]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(module, "Haproxy", lambda path: haproxy.Haproxy(path, seconds=1))

    def ask(asked: ModuleType, master: Master, **given: Any) -> dict[str, Any]:
        options = {"socket": master.socket, "state_file": str(tmp_path / "kept/servers"), **given}
        with patch_module_args(options), pytest.raises(SystemExit):
            asked.main()
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return ask


def test_a_drained_server_that_passed_is_let_in_and_stays_in(call: Any, tmp_path: Path) -> None:
    with serving(Master({"7": fleet(spark_2=drained(), spark_3=drained())})) as master:
        result = call(gateway_admit, master, servers=[PLACE])
        again = call(gateway_admit, master, servers=[PLACE])
    assert (result["changed"], result["admitted"], result["outside"]) == (True, ["chat/spark-2"], {})
    assert result["diff"] == {"before": {"chat/spark-2": "drained"}, "after": {"chat/spark-2": "ready"}}
    assert {name: each.state for name, each in master.workers["7"].items() if each.state != "ready"} == {
        "chat/spark-3": "drain"
    }
    assert "chat 7 spark-2 192.0.2.1 2 0 " in (tmp_path / "kept/servers").read_text()
    assert (again["changed"], again["admitted"]) == (False, [])


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"port": 8001}, "not in chat at 192.0.2.1 port 8001"),
        ({"address": "192.0.2.2"}, "not in chat at 192.0.2.2 port 8000"),
        ({"pool": "embed"}, "not in embed at 192.0.2.1 port 8000"),
        ({"name": "spark-9"}, "not in chat at 192.0.2.1 port 8000"),
    ],
)
def test_a_place_that_leads_elsewhere_stays_closed(call: Any, other: dict[str, Any], reason: str) -> None:
    """The Spark serves another model or at another port now, and the gateway would send it what it does not serve."""
    with serving(Master({"7": fleet(spark_2=drained())})) as master:
        result = call(gateway_admit, master, servers=[PLACE | other])
    assert (result["changed"], list(result["outside"].values())) == (False, [reason])
    assert master.workers["7"]["chat/spark-2"].state == "drain"


def test_maintenance_is_ended_by_nobody_else(call: Any) -> None:
    with serving(Master({"7": fleet(spark_2=StubServer("maint", "MAINT"))})) as master:
        result = call(gateway_admit, master, servers=[PLACE])
    assert (result["changed"], result["outside"]) == (False, {"spark-2": "in maintenance"})


def test_a_check_lets_nobody_in(call: Any, tmp_path: Path) -> None:
    with serving(Master({"7": fleet(spark_2=drained())})) as master:
        result = call(gateway_admit, master, servers=[PLACE], _ansible_check_mode=True)
    assert (result["changed"], master.workers["7"]["chat/spark-2"].state) == (True, "drain")
    assert not (tmp_path / "kept").exists()


def test_where_no_gateway_is_set_up_nobody_is_let_in_or_missed(call: Any, tmp_path: Path) -> None:
    none = Master({}, socket=str(tmp_path / "none"))
    assert call(gateway_admit, none, servers=[PLACE])["outside"] == {"spark-2": "this gateway is not set up"}
    assert call(gateway_outage, none, batches=turns(["spark-1"]))["outages"] == {}


@pytest.mark.parametrize(
    ("batches", "outage"),
    [
        ([["spark-1"], ["spark-2"], ["spark-3", "spark-4"]], []),
        ([["spark-1", "spark-2", "spark-3", "spark-4"]], ["spark-1", "spark-2", "spark-3", "spark-4"]),
        ([["spark-1"], ["spark-2", "spark-3", "spark-4"], ["spark-9"]], []),
        ([["spark-9"]], []),
        ([], []),
    ],
)
def test_no_batch_may_have_all_that_serve(call: Any, batches: list[list[str]], outage: list[str]) -> None:
    with serving(Master({"7": fleet()})) as master:
        result = call(gateway_outage, master, batches=turns(*batches))
        allowed = call(gateway_outage, master, batches=turns(*batches), allow_outage=True)
    assert result.get("failed", False) is bool(outage)
    assert result["outages"] == allowed["outages"] == ({"chat": outage} if outage else {})
    if outage:
        assert "chat has only spark-1, spark-2, spark-3, spark-4, to be taken away at once" in result["msg"]
    assert not [command for command in master.asked if "set server" in command]


def test_who_gets_nothing_already_serves_no_pool(call: Any) -> None:
    servers = fleet(
        spark_2=drained(), spark_3=StubServer("ready", "DOWN"), spark_4=StubServer("maint", "MAINT")
    )
    with serving(Master({"7": servers})) as master:
        assert call(gateway_outage, master, batches=turns(["spark-2", "spark-3"]))["outages"] == {}
        assert call(gateway_outage, master, batches=turns(["spark-1"]))["outages"] == {"chat": ["spark-1"]}


def test_what_an_earlier_batch_brings_back_counts_and_maintenance_does_not(call: Any) -> None:
    """A killed run has left one drained, which the first batch finds serving and lets in."""
    with serving(Master({"7": fleet(spark_2=drained(), spark_3=drained(), spark_4=drained())})) as master:
        first = {"admitted": ["spark-2"]}
        assert call(gateway_outage, master, batches=[first, *turns(["spark-1"])])["outages"] == {}
        master.workers["7"]["chat/spark-2"] = StubServer("maint", "MAINT")
        assert call(gateway_outage, master, batches=[first, *turns(["spark-1"])])["outages"] == {
            "chat": ["spark-1"]
        }
