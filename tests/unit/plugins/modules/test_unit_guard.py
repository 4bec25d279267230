"""Ports of a unit that its members alone reach: a real nft, and real connections between namespaces of the kernel.

The module itself runs inside the namespace of the host `spark`, and finds no program but nft and a stand-in of systemctl.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import netns, nft
from helpers.guarded import Guarded, Intruder
from helpers.netns import Host, needs_namespaces
from helpers.nft import needs_nft

pytestmark = [needs_namespaces, needs_nft]

SUPERVISOR, MASTER, SSH, API = 8622, 29501, 22, 8000
RANGE = (40000, 40099)
EPHEMERAL = 40050
SPARK, MEMBER = "10.0.1.1", "10.0.1.2"
TABLE = "inet sparkfleet_unit"
PLACES = """
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host import unit_guard
unit_guard.DIRECTORY = Path(asked["directory"])
"""

# The ports that answer within the time that one takes which does not.
SCAN = """
import socket, sys
from concurrent.futures import ThreadPoolExecutor
def answers(port):
    try:
        return socket.create_connection((sys.argv[1], port), timeout=0.7)
    except OSError:
        return None
ports = list(map(int, sys.argv[2:]))
with ThreadPoolExecutor(len(ports)) as pool:
    print(*[port for port, found in zip(ports, pool.map(answers, ports)) if found])
"""


class Spark(Guarded):
    """A Spark, the other member of its unit, and a stranger, each with a cable of its own to the Spark."""

    def __init__(self, root: Path, hosts: dict[str, Host]) -> None:
        super().__init__(root, hosts["spark"], nft.programs(root / "bin"), "unit_guard", PLACES)
        self.member, self.stranger = hosts["member"], hosts["stranger"]
        self.ephemeral(*RANGE)

    def ephemeral(self, first: int, last: int) -> None:
        # The kernel gives away no port that only root may use.
        for name, value in (("ip_unprivileged_port_start", "1"), ("ip_local_port_range", f"{first} {last}")):
            self.host.do("sh", "-c", f"echo {value} > /proc/sys/net/ipv4/{name}")

    def call(self, **given: Any) -> dict[str, Any]:
        return self.ask({"members": [SPARK, MEMBER], "ports": [SUPERVISOR, MASTER], **given})

    def nft(self, *options: str, given: str = "") -> str:
        return self.host.do(str(self.programs / "nft"), *options, given=given)

    def ruleset(self) -> str:
        return self.nft("list", "ruleset")

    def scan(self, host: Host, address: str, *ports: int) -> set[int]:
        """The ports that answer."""
        return set(map(int, host.do(sys.executable, "-c", SCAN, address, *map(str, ports)).split()))


OPEN = {SSH, API}
CLOSED = {SUPERVISOR, MASTER, EPHEMERAL}
ALL = sorted(OPEN | CLOSED)


@pytest.fixture
def spark(tmp_path: Path) -> Iterator[Spark]:
    with netns.hosts("spark", "member", "stranger") as hosts:
        netns.join(hosts["spark"], hosts["member"], "one", "1")
        netns.join(hosts["spark"], hosts["stranger"], "two", "2")
        for port in ALL:
            hosts["spark"].serve(port)
        yield Spark(tmp_path, hosts)


def test_a_scan_finds_the_ports_of_the_unit_from_a_member_alone(spark: Spark) -> None:
    assert spark.scan(spark.stranger, "10.0.2.1", *ALL) == OPEN | CLOSED
    found = spark.call()
    assert (found["changed"], found["members"]) == (True, [SPARK, MEMBER])
    assert spark.scan(spark.stranger, "10.0.2.1", *ALL) == OPEN
    # By the address that the members use, which routes answer, a stranger's packets are the stranger's.
    assert spark.scan(spark.stranger, SPARK, *ALL) == OPEN
    assert spark.scan(spark.member, SPARK, *ALL) == OPEN | CLOSED
    for address in ("127.0.0.1", SPARK, "::1", "fd00:1::1"):
        assert spark.scan(spark.host, address, *ALL) == OPEN | CLOSED, address


def test_ipv6_is_closed_unless_a_member_is_of_it(spark: Spark) -> None:
    spark.call()
    assert spark.scan(spark.member, "fd00:1::1", *ALL) == OPEN
    members = [SPARK, MEMBER, "fd00:1::1", "fd00:1:0:0::2"]
    assert spark.call(members=members)["changed"] is True
    assert spark.scan(spark.member, "fd00:1::1", *ALL) == OPEN | CLOSED
    assert spark.scan(spark.stranger, "fd00:2::1", *ALL) == OPEN
    assert spark.call(members=members)["changed"] is False


def test_what_the_host_begins_itself_is_answered(spark: Spark) -> None:
    """Its own end of such a connection has a port that is closed to others."""
    spark.stranger.serve(443)
    before = spark.host.connect("10.0.2.2", 443)
    spark.call()
    after = spark.host.connect("10.0.2.2", 443)
    assert before.answers("begun before") and after.answers("begun after")


def test_a_connection_of_a_member_survives_a_change_of_the_members(spark: Spark) -> None:
    spark.call()
    held = spark.member.connect(SPARK, MASTER)
    assert held.answers("before")
    assert spark.call(members=[SPARK, MEMBER, "10.0.9.9"])["changed"] is True
    assert held.answers("after")


def test_no_moment_is_without_rules(spark: Spark) -> None:
    spark.call()
    intruder = Intruder(spark.stranger, "10.0.2.1", MASTER)
    for number in range(4):
        assert spark.call(members=[SPARK, MEMBER, f"10.9.9.{number + 1}"])["changed"] is True
    answered, tried = intruder.end()
    assert (answered, tried > 500) == (0, True)


@pytest.mark.parametrize("first", [1, 20])
def test_a_range_with_the_ports_of_others_closes_none_of_these(spark: Spark, first: int) -> None:
    spark.ephemeral(first, 65535)
    spark.call(open_ports=[API])
    assert spark.scan(spark.stranger, "10.0.2.1", *ALL) == OPEN
    assert spark.call(open_ports=[API])["changed"] is False


def record(port: int, **more: Any) -> dict[str, Any]:
    serving = {"container": {"image": "i"}, "models": {}, "files": [], **more}
    return {"serving": serving | {"gate": {"base_url": f"http://127.0.0.1:{port}"}}, "gate": {}}


def test_the_ports_of_the_servers_on_record_stay_open(spark: Spark) -> None:
    spark.ephemeral(1, 65535)
    (spark.root / "state.json").write_text(json.dumps({"version": 1, "last_good": record(API)}))
    spark.call(state_dir=str(spark.root))
    assert spark.scan(spark.stranger, "10.0.2.1", *ALL) == OPEN


def test_the_units_on_record_are_kept_as_well(spark: Spark) -> None:
    """So neither a change nor a rollback cuts one, or opens its ports."""
    unit = {"members": [{"host": "m", "address": MEMBER}], "port": 8700, "master_port": MASTER}
    state = {"version": 1, "current": record(API), "last_good": record(API, unit=unit)}
    (spark.root / "state.json").write_text(json.dumps(state))
    there = {"members": [], "ports": [], "state_dir": str(spark.root)}
    found = spark.call(**there)
    assert found["members"] == [MEMBER]
    assert "dport { 8700, 29501, 40000-40099 } drop" in spark.ruleset()
    assert spark.call(**there, records=["current"])["members"] == []
    assert spark.ruleset() == ""


def test_a_second_run_changes_nothing(spark: Spark) -> None:
    assert spark.call()["changed"] is True
    rules, asked = spark.ruleset(), spark.asked()
    assert asked == ["daemon-reload", "enable --now sparkfleet-unit-guard.service"]
    second = spark.call(members=[MEMBER, SPARK, MEMBER])
    assert (second["changed"], second["diff"], second["drift"]["findings"]) == (False, [], [])
    assert (spark.ruleset(), spark.asked()) == (rules, asked)


def test_a_check_shows_the_rules_and_changes_nothing(spark: Spark) -> None:
    result = spark.call(_ansible_check_mode=True)
    assert result["changed"] is True
    assert [each["before_header"] for each in result["diff"]] == [
        f"nftables, table {TABLE}",
        str(spark.etc / "rules.nft"),
        str(spark.units / "sparkfleet-unit-guard.service"),
        "sparkfleet-unit-guard.service",
    ]
    assert result["diff"][0]["before"] == ""
    assert "elements = { 10.0.1.1, 10.0.1.2 }" in result["diff"][0]["after"]
    assert (spark.ruleset(), spark.asked(), spark.etc.exists()) == ("", [], False)
    spark.call()
    shown = spark.call(_ansible_check_mode=True, members=["10.9.9.9"])["diff"][0]
    assert MEMBER in shown["before"] and MEMBER not in shown["after"] and "10.9.9.9" in shown["after"]
    assert MEMBER in spark.ruleset()


FLUSHED = {
    "all rules": ["flush ruleset"],
    "the table": [f"delete table {TABLE}"],
    "its rules": [f"flush table {TABLE}"],
}


@pytest.mark.parametrize("case", FLUSHED)
def test_rules_that_somebody_flushed_are_found_and_mended(spark: Spark, case: str) -> None:
    spark.call()
    spark.nft("-f", "-", given="\n".join(FLUSHED[case]))
    assert spark.scan(spark.stranger, "10.0.2.1", *ALL) == OPEN | CLOSED
    assert spark.kinds() == ["unit-guard-open"]
    assert spark.call()["changed"] is True
    assert spark.scan(spark.stranger, "10.0.2.1", *ALL) == OPEN
    assert spark.kinds() == []


STRAY = {
    "another member": [f"add element {TABLE} members_v4 {{ 10.0.2.2 }}"],
    "a rule in front": [f"insert rule {TABLE} input tcp dport 29501 counter accept"],
    "a rule gone": [
        f"flush chain {TABLE} input",
        f"add rule {TABLE} input tcp dport {{ 8622, 29501, 40000-40099 }} drop",
    ],
    "another chain": [f"add chain {TABLE} other", f"add rule {TABLE} other accept"],
    "a map": [f"add map {TABLE} other {{ type ipv4_addr : verdict; }}"],
    "asleep": [f"add table {TABLE} {{ flags dormant; }}"],
}


@pytest.mark.parametrize("case", STRAY)
def test_a_change_of_somebody_else_is_found_and_mended(spark: Spark, case: str) -> None:
    spark.call()
    wanted = spark.ruleset()
    spark.nft("-f", "-", given="\n".join(STRAY[case]))
    assert spark.kinds() == ["unit-guard-changed"]
    assert spark.call()["changed"] is True
    assert spark.call()["changed"] is False
    assert spark.ruleset() == wanted
    assert spark.scan(spark.stranger, "10.0.2.1", *ALL) == OPEN


def test_rules_of_others_stay_and_open_nothing(spark: Spark) -> None:
    others = "add table inet mine\nadd chain inet mine input { type filter hook input priority -300; }\nadd rule inet mine input accept"
    spark.nft("-f", "-", given=others)
    before = spark.ruleset()
    spark.call()
    assert spark.scan(spark.stranger, "10.0.2.1", *ALL) == OPEN
    spark.call(members=[], ports=[])
    assert spark.ruleset() == before


def test_without_a_unit_all_goes(spark: Spark) -> None:
    spark.call()
    alone: dict[str, Any] = {"members": [], "ports": []}
    assert spark.kinds(**alone) == ["unit-guard-left"]
    assert spark.call(**alone)["changed"] is True
    assert (spark.ruleset(), spark.etc.exists(), list(spark.units.iterdir())) == ("", False, [])
    assert spark.asked()[-2:] == ["disable --now sparkfleet-unit-guard.service", "daemon-reload"]
    assert spark.scan(spark.stranger, "10.0.2.1", *ALL) == OPEN | CLOSED
    asked = spark.asked()
    assert spark.call(**alone)["changed"] is False
    assert (spark.kinds(**alone), spark.asked()) == ([], asked)


def test_the_unit_brings_the_rules_back(spark: Spark) -> None:
    spark.call()
    wanted = spark.ruleset()
    spark.nft("flush", "ruleset")
    for _ in range(2):
        assert [done.returncode for done in spark.boot()] == [0], spark.boot()
        assert spark.ruleset() == wanted
    assert spark.call()["changed"] is False


def test_a_file_of_rules_that_is_cut_off_closes_no_other_port(spark: Spark) -> None:
    spark.call()
    path = spark.etc / "rules.nft"
    text = path.read_text()
    for end in range(0, len(text) + 1, 13):
        path.write_text(text[:end])
        spark.boot()
        ports = re.findall(r"dport (.*) drop", spark.ruleset())
        assert ports in ([], ["{ 8622, 29501, 40000-40099 }"])
    path.write_text(text[:-20])
    assert "unit-guard-boot" in spark.kinds()
    spark.call()
    assert path.read_text() == text


@pytest.mark.parametrize("broken", ["rules.nft", "unit", "disabled"])
def test_what_would_not_come_back_at_boot_is_found_and_mended(spark: Spark, broken: str) -> None:
    spark.call()
    unit = spark.units / "sparkfleet-unit-guard.service"
    if broken == "disabled":
        (spark.state / "on").unlink()
    else:
        (unit if broken == "unit" else spark.etc / broken).unlink()
    assert spark.kinds() == ["unit-guard-boot"]
    assert spark.call()["changed"] is True
    assert spark.call()["changed"] is False


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"members": ["spark-2"]}, "do: write its address"),
        ({"members": ["10.0.1.0/24"]}, "members: expected addresses, seen: '10.0.1.0/24'"),
        ({"ports": [22]}, "that is not that of ssh"),
        ({"ports": []}, "expected at least one"),
        ({"open_ports": [SUPERVISOR]}, "ports: expected ports that the unit alone has, seen: [8622]"),
    ],
)
def test_what_no_rule_is_made_of_touches_nothing(spark: Spark, given: dict[str, Any], said: str) -> None:
    spark.call()
    before = spark.ruleset()
    result = spark.call(**given)
    assert result["failed"] is True and said in result["msg"]
    assert spark.ruleset() == before


def test_a_host_without_nft(spark: Spark) -> None:
    (spark.programs / "nft").rename(spark.programs / "gone")
    result = spark.call()
    assert "seen none; do: install the package nftables, and run again" in result["msg"]
    assert spark.call(_ansible_check_mode=True)["changed"] is True
    assert spark.call(members=[], ports=[])["changed"] is False
    assert not spark.etc.exists()


def replace(spark: Spark, script: str) -> None:
    program = spark.programs / "nft"
    program.rename(spark.programs / "real")
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_rules_that_nft_refuses_touch_nothing(spark: Spark) -> None:
    """Here because the kernel lacks connection tracking."""
    real = spark.programs / "real"
    replace(spark, f'case $1 in -c) echo "Could not process rule" >&2; exit 1;; esac\nexec {real} "$@"')
    result = spark.call()
    assert "expected nft to do its work, seen: nft exited 1: Could not process rule; do: " in result["msg"]
    assert (spark.ruleset(), spark.etc.exists(), spark.asked()) == ("", False, [])


@pytest.mark.parametrize("answer", ["", "{", "[]", '{"nftables": [{"table": 1}]}', '{"nftables": {}}'])
def test_an_answer_that_is_none_touches_nothing(spark: Spark, answer: str) -> None:
    replace(spark, f"echo '{answer}'")
    result = spark.call()
    assert "expected tables of nftables as JSON, seen: " in result["msg"]
    assert (spark.etc.exists(), spark.asked()) == (False, [])


def test_a_unit_that_systemd_does_not_start_fails_the_host_and_leaves_the_rules(spark: Spark) -> None:
    (spark.state / "broken").touch()
    result = spark.call()
    assert "seen: systemctl exited 1: Job failed; do: systemctl status" in result["msg"]
    assert spark.scan(spark.stranger, "10.0.2.1", *ALL) == OPEN
