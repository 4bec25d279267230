"""Ports that only some sources reach: real iptables of both backends, and real connections between namespaces of the kernel.

The module itself runs inside the namespace of the host `spark`, and finds no program but the iptables there and a stand-in of systemctl.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import netns
from helpers.guarded import Guarded, Intruder
from helpers.netns import Host, needs_namespaces

pytestmark = needs_namespaces

PORT, OTHER = 8000, 22
GATEWAY, STRANGER = "10.0.1.2", "10.0.2.2"
# Where the module finds what a test does not let it have.
PLACES = """
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host import iptables, port_guard
port_guard.DIRECTORY = Path(asked["directory"])
iptables.IPV6, port_guard.WAIT = Path(asked["ipv6"]), asked["wait"]
"""


class Spark(Guarded):
    """A Spark with a gateway, a stranger and a container, and what the module finds there."""

    def __init__(self, root: Path, backend: str, hosts: dict[str, Host]) -> None:
        super().__init__(root, hosts["spark"], netns.programs(root / "bin", backend), "port_guard", PLACES)
        self.gateway, self.stranger = hosts["gateway"], hosts["stranger"]
        self.ipv6, self.wait = "/proc/net/if_inet6", 10

    def call(self, **given: Any) -> dict[str, Any]:
        options = {"ports": [PORT], "sources": [GATEWAY], **given}
        return self.ask(options, ipv6=self.ipv6, wait=self.wait)

    def iptables(self, program: str, *options: str, given: str = "") -> str:
        return self.host.do(str(self.programs / program), *options, given=given)

    def rules(self, family: str = "iptables") -> list[str]:
        saved = self.iptables(f"{family}-save", "-t", "raw")
        return [line for line in saved.splitlines() if line.startswith("-A")]


BACKENDS = pytest.mark.parametrize("spark", ["nft", "legacy"], indirect=True)
"""For what depends on which iptables it is."""


@pytest.fixture
def spark(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Spark]:
    with netns.hosts("spark", "gateway", "stranger") as hosts:
        netns.join(hosts["spark"], hosts["gateway"], "one", "1")
        netns.join(hosts["spark"], hosts["stranger"], "two", "2")
        hosts["spark"].serve(PORT)
        hosts["spark"].serve(OTHER)
        yield Spark(tmp_path, getattr(request, "param", "nft"), hosts)


def test_a_program_of_a_host_never_runs_in_the_network_of_this_machine(spark: Spark) -> None:
    seen = spark.host.do("stat", "-L", "-c", "%i", "/proc/self/ns/net").strip()
    assert seen != str(netns.inode())
    own = Host(subprocess.Popen(["sleep", "60"], text=True))
    with pytest.raises(AssertionError, match="the machine's own network"):
        own.run("true")
    own.holder.kill()
    own.holder.wait()


@BACKENDS
def test_the_gateways_alone_reach_the_port_and_all_reach_the_others(spark: Spark) -> None:
    assert spark.stranger.reaches("10.0.2.1", PORT) == "connected"
    assert spark.call()["changed"] is True
    assert spark.gateway.reaches("10.0.1.1", PORT) == "connected"
    begun = time.monotonic()
    assert spark.stranger.reaches("10.0.2.1", PORT) == "timed out"
    assert time.monotonic() - begun < 5
    # By the gateways' network, which routes answer, a stranger's packets are the stranger's.
    assert spark.stranger.reaches("10.0.1.1", PORT) == "timed out"
    assert spark.stranger.reaches("10.0.2.1", OTHER) == "connected"
    for address in ("127.0.0.1", "10.0.2.1", "::1", "fd00:2::1"):
        assert spark.host.reaches(address, PORT) == "connected", address


@BACKENDS
def test_ipv6_is_closed_unless_a_source_is_of_it(spark: Spark) -> None:
    spark.call()
    assert spark.gateway.reaches("fd00:1::1", PORT) == "timed out"
    assert spark.gateway.reaches("fd00:1::1", OTHER) == "connected"
    spark.call(sources=[GATEWAY, "fd00:1:0:0::2"])
    assert spark.gateway.reaches("fd00:1::1", PORT) == "connected"
    assert spark.stranger.reaches("fd00:2::1", PORT) == "timed out"
    assert spark.call(sources=[GATEWAY, "fd00:1::2"])["changed"] is False


def test_the_monitoring_alone_reaches_its_port_and_that_of_the_server(spark: Spark) -> None:
    """Here the stranger is the monitoring."""
    spark.host.serve(9100)
    watched = {"monitoring_ports": [9100], "monitoring_sources": ["10.0.2.2"]}
    assert spark.call(**watched)["changed"] is True
    assert spark.stranger.reaches("10.0.2.1", 9100) == "connected"
    assert spark.stranger.reaches("10.0.2.1", PORT) == "connected"
    assert spark.gateway.reaches("10.0.1.1", 9100) == "timed out"
    assert spark.gateway.reaches("10.0.1.1", PORT) == "connected"
    assert spark.call(**watched)["changed"] is False
    spark.call(ports=[], sources=[], **watched)
    assert spark.gateway.reaches("10.0.1.1", PORT) == "connected"
    assert spark.gateway.reaches("10.0.1.1", 9100) == "timed out"


def test_a_run_that_does_not_know_the_ports_of_the_servers_opens_none(spark: Spark) -> None:
    spark.call(ports=[PORT, 9000])
    watched = {"monitoring_ports": [9100], "monitoring_sources": ["10.0.2.2"]}
    for changed in (True, False):
        found = spark.call(ports=[], keep=True, **watched)
        assert (found["changed"], found["ports"]) == (changed, [PORT, 9000])
    assert spark.call(ports=[PORT, 9000], **watched)["changed"] is False


def test_a_network_of_sources_may_connect(spark: Spark) -> None:
    spark.call(sources=[GATEWAY, "10.0.2.0/24"])
    assert spark.stranger.reaches("10.0.2.1", PORT) == "connected"


@BACKENDS
def test_a_connection_survives_a_change_of_the_rules(spark: Spark) -> None:
    spark.call()
    held = spark.gateway.connect("10.0.1.1", PORT)
    assert held.answers("before")
    assert spark.call(sources=["10.9.9.9", GATEWAY], ports=[PORT, 9000])["changed"] is True
    assert held.answers("after")
    assert spark.stranger.reaches("10.0.2.1", PORT) == "timed out"


@BACKENDS
def test_no_moment_is_without_rules(spark: Spark) -> None:
    spark.call()
    intruder = Intruder(spark.stranger, "10.0.2.1", PORT)
    for number in range(4):
        assert spark.call(sources=[GATEWAY, f"10.9.9.{number + 1}"])["changed"] is True
    answered, tried = intruder.end()
    assert (answered, tried > 500) == (0, True)


@BACKENDS
def test_a_port_that_docker_publishes_is_kept_as_well(spark: Spark) -> None:
    """As Docker does it: DNAT of what is for this host, to a container behind a bridge's address."""
    with netns.hosts("container") as more:
        container = more["container"]
        netns.join(spark.host, container, "docker0", "17")
        container.serve(80)
        spark.host.do("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        publish = "-A PREROUTING -m addrtype --dst-type LOCAL -p tcp --dport 8001 -j DNAT --to-destination 10.0.17.2:80"
        spark.iptables("iptables-restore", "--noflush", given=f"*nat\n{publish}\nCOMMIT\n")
        assert spark.stranger.reaches("10.0.2.1", 8001) == "connected"
        spark.call(ports=[8001])
        assert spark.gateway.reaches("10.0.1.1", 8001) == "connected"
        assert spark.stranger.reaches("10.0.2.1", 8001) == "timed out"


def test_what_the_host_routes_for_others_passes(spark: Spark) -> None:
    """Such as a container's request to a foreign server, whose port is the same by chance."""
    spark.host.do("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
    spark.gateway.serve(PORT)
    spark.call()
    assert spark.stranger.reaches(GATEWAY, PORT) == "connected"


@BACKENDS
def test_a_second_run_changes_nothing(spark: Spark) -> None:
    first = spark.call()
    assert (first["changed"], first["ports"]) == (True, [PORT])
    rules, asked = spark.rules(), spark.asked()
    assert asked == ["daemon-reload", "enable --now sparkfleet-port-guard.service"]
    second = spark.call()
    assert (second["changed"], second["diff"], second["drift"]["findings"]) == (False, [], [])
    assert (spark.rules(), spark.asked()) == (rules, asked)


def test_a_check_shows_the_rules_and_changes_nothing(spark: Spark) -> None:
    result = spark.call(_ansible_check_mode=True)
    assert result["changed"] is True
    assert [each["before_header"] for each in result["diff"]] == [
        "iptables, table raw",
        "ip6tables, table raw",
        str(spark.etc / "rules.v4"),
        str(spark.etc / "rules.v6"),
        str(spark.units / "sparkfleet-port-guard.service"),
        "sparkfleet-port-guard.service",
    ]
    assert result["diff"][0]["before"] == ""
    assert f"-A SPARKFLEET -s {GATEWAY}/32 -j RETURN\n" in result["diff"][0]["after"]
    assert (spark.rules(), spark.asked(), spark.etc.exists()) == ([], [], False)
    spark.call()
    shown = spark.call(_ansible_check_mode=True, sources=["10.9.9.9"])["diff"]
    assert f"-s {GATEWAY}/32" in shown[0]["before"] and "-s 10.9.9.9/32" in shown[0]["after"]
    assert f"-A SPARKFLEET -s {GATEWAY}/32 -j RETURN" in spark.rules()


@BACKENDS
def test_rules_that_somebody_flushed_are_found_and_mended(spark: Spark) -> None:
    spark.call()
    spark.iptables("iptables", "-t", "raw", "-F")
    assert spark.stranger.reaches("10.0.2.1", PORT) == "connected"
    assert spark.kinds() == ["port-open"]
    assert spark.call()["changed"] is True
    assert spark.stranger.reaches("10.0.2.1", PORT) == "timed out"
    assert spark.kinds() == []


STRAY = {
    "jump is not the first": ["-I PREROUTING 1 -p tcp --dport 8000 -j ACCEPT"],
    "second jump": ["-A PREROUTING -j SPARKFLEET"],
    "jump from elsewhere": ["-A OUTPUT -p udp -j SPARKFLEET"],
    "another source": ["-I SPARKFLEET 1 -s 10.0.2.2/32 -j ACCEPT"],
    "rule gone": ["-D SPARKFLEET -i lo -j RETURN"],
}


@pytest.mark.parametrize("case", STRAY)
def test_a_rule_of_somebody_else_is_found_and_mended(spark: Spark, case: str) -> None:
    spark.call()
    wanted = spark.rules()
    spark.iptables("iptables-restore", "--noflush", given="\n".join(["*raw", *STRAY[case], "COMMIT", ""]))
    assert spark.kinds() == ["port-guard-changed"]
    assert spark.call()["changed"] is True
    assert spark.call()["changed"] is False
    foreign = ["-A PREROUTING -p tcp -m tcp --dport 8000 -j ACCEPT"] if "first" in case else []
    assert spark.rules() == wanted[:1] + foreign + wanted[1:]


@BACKENDS
def test_rules_of_others_stay(spark: Spark) -> None:
    others = ["-A PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP", "-A OUTPUT -p udp -j CT --notrack"]
    spark.iptables("iptables-restore", "--noflush", given="\n".join(["*raw", *others, "COMMIT", ""]))
    before = spark.rules()
    spark.call()
    assert set(before) < set(spark.rules())
    assert spark.call()["changed"] is False
    spark.call(state="absent")
    assert spark.rules() == before


@BACKENDS
def test_without_gateways_all_goes(spark: Spark) -> None:
    spark.call()
    assert spark.kinds(state="absent") == ["port-guard-left"]
    assert spark.call(state="absent")["changed"] is True
    assert (spark.rules(), spark.rules("ip6tables")) == ([], [])
    assert ":SPARKFLEET" not in spark.iptables("iptables-save", "-t", "raw")
    assert (spark.etc.exists(), list(spark.units.iterdir())) == (False, [])
    assert spark.asked()[-2:] == ["disable --now sparkfleet-port-guard.service", "daemon-reload"]
    assert spark.stranger.reaches("10.0.2.1", PORT) == "connected"
    asked = spark.asked()
    assert spark.call(state="absent")["changed"] is False
    assert (spark.kinds(state="absent"), spark.asked()) == ([], asked)


@BACKENDS
def test_the_unit_brings_the_rules_back_and_adds_no_second_jump(spark: Spark) -> None:
    spark.call()
    wanted = spark.rules(), spark.rules("ip6tables")
    for family in ("iptables", "ip6tables"):
        spark.iptables(family, "-t", "raw", "-F")
        spark.iptables(family, "-t", "raw", "-X")
    for _ in range(2):
        assert [done.returncode for done in spark.boot()] == [0] * 4, spark.boot()
        assert (spark.rules(), spark.rules("ip6tables")) == wanted
    assert spark.call()["changed"] is False


@BACKENDS
def test_a_file_of_rules_that_is_cut_off_closes_nothing(spark: Spark) -> None:
    spark.call()
    spark.iptables("iptables", "-t", "raw", "-F")
    spark.iptables("iptables", "-t", "raw", "-X")
    path = spark.etc / "rules.v4"
    text = path.read_text()
    for end in range(0, len(text) - len("COMMIT\n") + 1, 7):
        path.write_text(text[:end])
        spark.boot()
        assert spark.rules() in ([], ["-A PREROUTING -j SPARKFLEET"])
    assert spark.stranger.reaches("10.0.2.1", OTHER) == "connected"
    assert "port-guard-boot" in spark.kinds()
    spark.call()
    assert path.read_text() == text


def test_a_rule_drops_a_guarded_port_or_nothing(spark: Spark) -> None:
    spark.call(ports=[PORT, 9000])
    for family in ("iptables", "ip6tables"):
        dropping = [
            line for line in spark.rules(family) if "RETURN" not in line and "-j SPARKFLEET" not in line
        ]
        assert [re.findall(r"-p tcp -m tcp --dport (\d+) ", line) for line in dropping] == [
            ["8000"],
            ["9000"],
        ]


@pytest.mark.parametrize("broken", ["rules.v4", "rules.v6", "unit", "disabled"])
def test_what_would_not_come_back_at_boot_is_found_and_mended(spark: Spark, broken: str) -> None:
    spark.call()
    unit = spark.units / "sparkfleet-port-guard.service"
    if broken == "disabled":
        (spark.state / "on").unlink()
    else:
        (unit if broken == "unit" else spark.etc / broken).unlink()
    assert spark.kinds() == ["port-guard-boot"]
    assert spark.call()["changed"] is True
    assert spark.call()["changed"] is False


def record(port: int) -> dict[str, Any]:
    serving = {"container": {"image": "i"}, "models": {}, "files": []}
    return {"serving": serving | {"gate": {"base_url": f"http://127.0.0.1:{port}"}}, "gate": {}}


def test_the_ports_of_the_servers_on_record_are_kept_as_well(spark: Spark) -> None:
    state = {"version": 1, "current": record(9000), "last_good": record(PORT)}
    (spark.root / "state.json").write_text(json.dumps(state))
    assert spark.call(ports=[9001], state_dir=str(spark.root))["ports"] == [PORT, 9000, 9001]
    assert spark.stranger.reaches("10.0.2.1", PORT) == "timed out"
    for text in ("", "{", json.dumps({"version": 1, "current": None})):
        (spark.root / "state.json").write_text(text)
        assert spark.call(ports=[9001], state_dir=str(spark.root))["ports"] == [9001]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"sources": ["gate-1"]}, "do: write its address"),
        ({"sources": ["10.0.2.7/24"]}, "do: write 10.0.2.0/24"),
        ({"ports": [22]}, "that is not that of ssh"),
        ({"ports": []}, "expected at least one"),
    ],
)
def test_what_no_rule_is_made_of_touches_nothing(spark: Spark, given: dict[str, Any], said: str) -> None:
    spark.call()
    before = spark.rules()
    result = spark.call(**given)
    assert result["failed"] is True and said in result["msg"]
    assert spark.rules() == before


def test_a_host_without_iptables(spark: Spark) -> None:
    for name in ("iptables-save", "iptables-restore"):
        (spark.programs / name).rename(spark.programs / f"{name}.gone")
    result = spark.call()
    assert result["msg"] == (
        "expected iptables-save, which Docker needs as well, seen none; do: install the package iptables, and run again"
    )
    assert spark.call(_ansible_check_mode=True)["changed"] is True
    assert spark.call(state="absent")["changed"] is False
    assert not spark.etc.exists()


def test_rules_that_iptables_refuses_touch_nothing(spark: Spark) -> None:
    """Here because the kernel or the program lacks a match."""
    program = spark.programs / "ip6tables-restore"
    program.unlink()
    program.write_text("#!/bin/sh\necho 'Extension addrtype revision 0 not supported' >&2\nexit 2\n")
    program.chmod(0o755)
    result = spark.call()
    assert (
        "expected ip6tables-restore to do its work, seen: ip6tables-restore exited 2: Extension"
        in result["msg"]
    )
    assert (spark.rules(), spark.etc.exists(), spark.asked()) == ([], False, [])


def test_a_unit_that_systemd_does_not_start_fails_the_host_and_leaves_the_rules(spark: Spark) -> None:
    (spark.state / "broken").touch()
    result = spark.call()
    assert "seen: systemctl exited 1: Job failed; do: systemctl status" in result["msg"]
    assert spark.stranger.reaches("10.0.2.1", PORT) == "timed out"


def test_a_host_without_ipv6_has_rules_of_ipv4_alone(spark: Spark) -> None:
    spark.ipv6 = str(spark.root / "none")
    spark.call()
    assert (len(spark.rules()), spark.rules("ip6tables")) == (4, [])
    assert [done.returncode for done in spark.boot()] == [0, 0]
    assert not (spark.etc / "rules.v6").exists()


@pytest.mark.parametrize("spark", ["legacy"], indirect=True)
def test_a_lock_that_another_program_holds_is_waited_for_and_not_for_ever(spark: Spark) -> None:
    """Only the older backend has one."""
    holder = spark.host.start("flock", "/run/xtables.lock", "sh", "-c", "echo held; sleep 4")
    assert holder.stdout and holder.stdout.readline() == "held\n"
    spark.wait = 1
    assert "seen: iptables-restore exited 4: Another app is" in spark.call()["msg"]
    assert (spark.rules(), spark.etc.exists(), holder.poll()) == ([], False, None)
    spark.wait = 10
    assert spark.call()["changed"] is True
    assert holder.poll() == 0
