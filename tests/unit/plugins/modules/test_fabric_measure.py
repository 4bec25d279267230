from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host import bandwidth, echo
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host.request import (
    CommandAbsentError,
    ProbeError,
)
from ansible_collections.sparkfleet.vllm.plugins.modules import fabric_measure as module
from helpers import printed

OWN = {"address": "192.168.100.11", "interface": "enp1s0f0np0"}
LANE = {"tool": "iperf3", "port": 5201}
PEER = "192.168.100.12"


def run(capsys, arguments: dict[str, Any], check: bool = False) -> dict[str, Any]:
    with patch_module_args(OWN | arguments | {"_ansible_check_mode": check}), pytest.raises(SystemExit):
        module.main()
    return printed.result(capsys.readouterr().out)


@pytest.fixture
def calls(monkeypatch) -> list[Any]:
    made: list[Any] = []

    def noted(name: str, result: Any = None) -> Any:
        def call(*asked: Any) -> Any:
            made.append((name, *asked))
            return result

        return call

    monkeypatch.setattr(bandwidth, "listen", noted("listen"))
    monkeypatch.setattr(bandwidth, "end", noted("end"))
    monkeypatch.setattr(bandwidth, "measure", noted("measure", 43.257))
    monkeypatch.setattr(echo, "problem", noted("reach", ""))
    return made


def test_each_step_does_its_part_and_returns_what_it_documents(capsys, calls):
    lane = module.Lane("iperf3", 5201)
    known = {"changed", "invocation", *yaml.safe_load(module.RETURN)}
    results = [
        run(capsys, {"step": "reach", "peers": [PEER]}),
        run(capsys, {"step": "listen", "peers": [PEER], "listeners": [LANE]}),
        run(capsys, {"step": "load", "measurements": [LANE | {"peer": PEER}]}),
        run(capsys, {"step": "end", "listeners": [LANE]}),
    ]
    assert calls == [
        ("reach", "192.168.100.11", PEER, "enp1s0f0np0", 9000),
        ("listen", lane, "192.168.100.11", [PEER], 900),
        ("measure", lane, "192.168.100.11", PEER, 5),
        ("end", lane),
    ]
    assert all(set(result) <= known and result["changed"] is False for result in results)
    assert results[0]["reached"] == [{"peer": PEER, "problem": ""}]
    assert results[1]["silent"] == {}
    assert results[2]["measured"] == [
        {"peer": PEER, "tool": "iperf3", "device": "", "gigabits": 43.26, "problem": "", "absent": False}
    ]


@pytest.mark.parametrize(
    ("error", "absent"), [(CommandAbsentError("iperf3 is not there"), True), (ProbeError("it hangs"), False)]
)
def test_what_cannot_be_measured_is_in_the_result(capsys, monkeypatch, error, absent):
    def fail(*asked):
        raise error

    monkeypatch.setattr(bandwidth, "listen", fail)
    monkeypatch.setattr(bandwidth, "measure", fail)
    assert run(capsys, {"step": "listen", "listeners": [LANE]})["silent"] == {"5201": str(error)}
    (measured,) = run(capsys, {"step": "load", "measurements": [LANE | {"peer": PEER}]})["measured"]
    assert (measured["gigabits"], measured["problem"], measured["absent"]) == (None, str(error), absent)


@pytest.mark.parametrize(
    ("error", "failed"),
    [(CommandAbsentError("systemctl is not there"), False), (ProbeError("it hangs"), True)],
)
def test_without_systemd_there_is_nothing_to_end(capsys, monkeypatch, error, failed):
    def fail(lane):
        raise error

    monkeypatch.setattr(bandwidth, "end", fail)
    result = run(capsys, {"step": "end", "listeners": [LANE]})
    assert result.get("failed", False) is failed and ("it hangs" in result.get("msg", "")) is failed


def test_check_mode_reaches_and_measures_nothing(capsys, calls):
    run(capsys, {"step": "reach", "peers": [PEER]}, check=True)
    run(capsys, {"step": "listen", "listeners": [LANE]}, check=True)
    run(capsys, {"step": "load", "measurements": [LANE | {"peer": PEER}]}, check=True)
    run(capsys, {"step": "end", "listeners": [LANE]}, check=True)
    assert [call[0] for call in calls] == ["reach"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"address": "spark-1"}, "expected IPv4 addresses, got 'spark-1'"),
        ({"peers": ["--bind"]}, "expected IPv4 addresses"),
        ({"measurements": [LANE | {"peer": "x"}]}, "expected IPv4 addresses"),
        ({"interface": "a b"}, "interface: expected"),
        ({"interface": "-x"}, "interface: expected"),
        ({"listeners": [LANE | {"port": 22}]}, "port: expected 1024 to 65535"),
        ({"listeners": [{"tool": "ib_write_bw", "port": 5202}]}, "device: expected"),
        ({"seconds": 0}, "seconds: expected 1 to 60"),
        ({"lifetime": 99999}, "lifetime: expected"),
        ({"mtu": 1}, "mtu: expected"),
    ],
)
def test_what_would_not_be_a_command_is_refused(capsys, calls, arguments, words):
    result = run(capsys, {"step": "reach"} | arguments)
    assert result["failed"] and words in result["msg"] and calls == []


def test_documentation_and_arguments_agree():
    documented = yaml.safe_load(module.DOCUMENTATION)["options"]
    assert {name: option.get("default") for name, option in documented.items()} == {
        name: option.get("default") for name, option in module.ARGUMENTS.items()
    }
