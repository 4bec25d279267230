from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host import netplan
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host.request import (
    CommandAbsentError,
    ProbeError,
    Request,
)
from ansible_collections.sparkfleet.vllm.plugins.modules import fabric_netplan as module
from helpers import printed
from helpers.fabric import ADDRESSES, put, spark

TWINS = {"enp1s0f0np0": "192.168.100.11/24", "enP2p1s0f0np0": "192.168.101.11/24"}
OTHER = "network: {version: 2}\n"


class Netplan:
    """The program: what it was asked, and what the folder that it looked at held then."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.fails: dict[str, Exception] = {}

    def run(self, argv, timeout):
        folder = Path(argv[-1]) if argv[1] == "generate" else self.root
        self.asked.append(
            (argv[1], {path.name: path.read_text() for path in sorted((folder / "etc/netplan").glob("*"))})
        )
        if argv[1] in self.fails:
            raise self.fails[argv[1]]
        return ""


@pytest.fixture
def host(tmp_path) -> Netplan:
    put(spark(tmp_path), "/etc/netplan/50-cloud-init.yaml", OTHER.strip())
    return Netplan(tmp_path)


def run(host: Netplan, capsys, check: bool = False, **arguments: Any) -> dict[str, Any]:
    request = Request(root=host.root, run=host.run, addresses=lambda: dict(ADDRESSES))
    with (
        patch_module_args({"addresses": TWINS, "_ansible_check_mode": check} | arguments),
        pytest.raises(SystemExit),
    ):
        module.main(request)
    return printed.result(capsys.readouterr().out)


def written(host: Netplan) -> Path:
    return host.root / "etc/netplan" / netplan.NAME


def test_it_checks_writes_and_applies_once(host, capsys):
    result = run(host, capsys)
    assert result["changed"] and result["path"] == "/etc/netplan/90-sparkfleet-fabric.yaml"
    assert result["diff"]["before"] == "" and "enP2p1s0f0np0" in result["diff"]["after"]
    assert written(host).read_text() == result["diff"]["after"]
    assert written(host).stat().st_mode & 0o777 == 0o600
    (generated, beside), (applied, _files) = host.asked
    assert (generated, applied) == ("generate", "apply")
    assert beside == {"50-cloud-init.yaml": OTHER, netplan.NAME: result["diff"]["after"]}
    host.asked.clear()
    assert run(host, capsys)["changed"] is False and host.asked == []


def test_check_mode_has_it_checked_and_writes_nothing(host, capsys):
    assert run(host, capsys, check=True)["changed"]
    assert [asked for asked, _files in host.asked] == ["generate"] and not written(host).exists()


def test_without_addresses_the_file_goes(host, capsys):
    run(host, capsys)
    assert run(host, capsys, addresses={})["changed"] and not written(host).exists()
    assert run(host, capsys, addresses={})["changed"] is False


@pytest.mark.parametrize(
    "error", [ProbeError("netplan exited 1: bad"), CommandAbsentError("netplan is not there")]
)
def test_what_netplan_refuses_is_not_written(host, capsys, error):
    host.fails["generate"] = error
    result = run(host, capsys)
    assert result["failed"] and str(error) in result["msg"] and "nothing was changed" in result["msg"]
    assert not written(host).exists()


def test_what_cannot_be_applied_is_taken_back(host, capsys):
    run(host, capsys)
    before = written(host).read_text()
    host.fails["apply"] = ProbeError("netplan took more than 60 s")
    result = run(host, capsys, mtu=1500)
    assert result["failed"] and "the former file is back" in result["msg"]
    assert written(host).read_text() == before


def test_an_interface_that_must_stay_is_refused_before_anything(host, capsys):
    put(host.root, "/proc/net/route", "h\nenp1s0f0np0 00000000 0100000A 3 0 0 0 00000000 0 0 0")
    result = run(host, capsys)
    assert result["failed"] and "the default route" in result["msg"] and host.asked == []
    for mtu in (1000, 70000):
        assert "mtu: expected" in run(host, capsys, mtu=mtu)["msg"]


def test_it_returns_what_it_documents(host, capsys):
    assert set(run(host, capsys)) - {"changed", "invocation", "diff"} == set(yaml.safe_load(module.RETURN))
