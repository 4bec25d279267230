"""What rules of a unit are made of, and how those of the kernel read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host import unit_guard
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host.guard import GuardError
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host.unit_guard import TableError

MEMBERS = unit_guard.members(["192.0.2.12", "192.0.2.11"])
WANTED = unit_guard.rules(MEMBERS, [(8622, 8622), (29501, 29501), (32768, 60999)])
PLACE = {"family": "inet", "table": "sparkfleet_unit"}


def matched(left: dict[str, Any], right: Any, operator: str = "==") -> dict[str, Any]:
    return {"match": {"op": operator, "left": left, "right": right}}


def rule(*expressions: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"rule": {**PLACE, "chain": "input", "handle": 4, "expr": list(expressions), **more}}


def source(protocol: str, name: str) -> dict[str, Any]:
    return rule(matched({"payload": {"protocol": protocol, "field": "saddr"}}, name), {"accept": None})


def dropped(ports: Any) -> dict[str, Any]:
    return rule(matched({"payload": {"protocol": "tcp", "field": "dport"}}, ports), {"drop": None})


def of_kernel() -> dict[str, dict[str, Any]]:
    """As nft 1.0.6 shows it, each object by a name of its own."""
    return {
        "about": {"metainfo": {"version": "1.0.6", "json_schema_version": 1}},
        "table": {"table": {"family": "inet", "name": "sparkfleet_unit", "handle": 5}},
        "v4": {"set": {**PLACE, "name": "members_v4", "type": "ipv4_addr", "handle": 2, "elem": ["192.0.2.12", "192.0.2.11"]}},
        "v6": {"set": {**PLACE, "name": "members_v6", "type": "ipv6_addr", "handle": 3}},
        "chain": {"chain": {**PLACE, "name": "input", "handle": 1, "type": "filter", "hook": "input", "prio": -10, "policy": "accept"}},
        "loopback": rule(matched({"meta": {"key": "iif"}}, "lo"), {"accept": None}),
        "begun": rule(matched({"ct": {"key": "state"}}, ["related", "established"], "in"), {"accept": None}),
        "from v4": source("ip", "@members_v4"),
        "from v6": source("ip6", "@members_v6"),
        "others": dropped({"set": [{"range": [32768, 60999]}, 8622, 29501]}),
    }  # fmt: skip


def read(objects: dict[str, dict[str, Any]]) -> tuple[str, ...]:
    return unit_guard.read(json.dumps({"nftables": list(objects.values())}))


def test_the_rules_of_a_unit() -> None:
    assert WANTED == (
        "add table inet sparkfleet_unit",
        "add set inet sparkfleet_unit members_v4 { type ipv4_addr; elements = { 192.0.2.11, 192.0.2.12 }; }",
        "add set inet sparkfleet_unit members_v6 { type ipv6_addr; }",
        "add chain inet sparkfleet_unit input { type filter hook input priority -10; policy accept; }",
        "add rule inet sparkfleet_unit input iif lo accept",
        "add rule inet sparkfleet_unit input ct state established,related accept",
        "add rule inet sparkfleet_unit input ip saddr @members_v4 accept",
        "add rule inet sparkfleet_unit input ip6 saddr @members_v6 accept",
        "add rule inet sparkfleet_unit input tcp dport { 8622, 29501, 32768-60999 } drop",
    )
    assert read(of_kernel()) == WANTED


def test_the_order_of_what_has_none_is_no_difference() -> None:
    kernel = of_kernel()
    assert read({name: kernel[name] for name in sorted(kernel, key=lambda each: each != "v6")}) == WANTED


def test_a_set_of_one_interval_and_that_interval_are_the_same() -> None:
    one = unit_guard.rules(MEMBERS, [(1024, 65535)])
    for ports in ({"range": [1024, 65535]}, {"set": [{"range": [1024, 65535]}]}):
        assert read(of_kernel() | {"others": dropped(ports)}) == one


def test_another_spelling_of_an_address_is_no_difference() -> None:
    wanted = unit_guard.rules(unit_guard.members(["::192.0.2.1"]), [(8622, 8622)])
    kernel = of_kernel() | {"others": dropped(8622)}
    kernel["v4"]["set"].pop("elem")
    kernel["v6"]["set"]["elem"] = ["::192.0.2.1"]
    assert read(kernel) == wanted


CHANGES: dict[str, tuple[str, Any]] = {
    "asleep": ("table", {"table": {"family": "inet", "name": "sparkfleet_unit", "flags": "dormant"}}),
    "policy": ("chain", {"chain": {**of_kernel()["chain"]["chain"], "policy": "drop"}}),
    "hook": ("chain", {"chain": {**PLACE, "name": "input"}}),
    "set with a flag": ("v4", {"set": {**of_kernel()["v4"]["set"], "flags": ["timeout"]}}),
    "element that is none": ("v4", {"set": {**of_kernel()["v4"]["set"], "elem": [3221225995, 3221225996]}}),
    "not": ("from v4", rule(matched({"payload": {"protocol": "ip", "field": "saddr"}}, "@members_v4", "!="), {"accept": None})),
    "of another": ("from v4", rule(matched({"payload": {"protocol": "ip", "field": "daddr"}}, "@members_v4"), {"accept": None})),
    "commented": ("others", rule(*dropped({"set": [8622]})["rule"]["expr"], comment="x")),
    "counted": ("others", rule({"counter": {"packets": 1, "bytes": 60}}, *of_kernel()["others"]["rule"]["expr"])),
    "nothing": ("others", rule()),
    "port too few": ("others", dropped({"set": [8622, {"range": [32768, 60999]}]})),
    "port by name": ("others", dropped({"set": ["8622", 29501, {"range": [32768, 60999]}]})),
    "half an interval": ("others", dropped({"set": [8622, 29501, {"range": [32768]}]})),
    "verdict with more": ("others", rule(*of_kernel()["others"]["rule"]["expr"][:1], {"drop": 1})),
    "map": ("more", {"map": {**PLACE, "name": "m"}}),
}  # fmt: skip


@pytest.mark.parametrize("case", CHANGES)
def test_whatever_else_the_kernel_has_differs(case: str) -> None:
    name, instead = CHANGES[case]
    kernel = of_kernel()
    assert read(kernel | {name: instead}) != WANTED
    # What is not understood is shown all the same.
    assert len(read(kernel | {name: instead})) == len(WANTED) + (name == "more")


def test_rules_in_another_order_differ() -> None:
    kernel = of_kernel()
    others = kernel.pop("others")
    assert read({"others": others, **kernel}) != WANTED


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"nftables": 1}', '{"nftables": [1]}', '{"nftables": [{"table": 1}]}',
                                  '{"nftables": [{"table": {}, "set": {}}]}'])  # fmt: skip
def test_what_is_no_answer_of_nft_is_refused(text: str) -> None:
    for reader in (unit_guard.read, unit_guard.there):
        with pytest.raises(
            TableError, match="expected tables of nftables as JSON, seen: .*; do: nft -j list table inet"
        ):
            reader(text)


def test_more_than_a_table_may_have_is_refused() -> None:
    with pytest.raises(TableError, match="more than 1048576 bytes"):
        unit_guard.read(" " * 1048577)


def test_whether_there_is_a_table() -> None:
    def there(*tables: tuple[str, str]) -> bool:
        found = [{"table": {"family": family, "name": name}} for family, name in tables]
        return unit_guard.there(json.dumps({"nftables": [{"metainfo": {}}, *found]}))

    assert there(("inet", "filter"), ("inet", "sparkfleet_unit"))
    assert not there(("ip", "sparkfleet_unit"), ("inet", "sparkfleet"))


@pytest.mark.parametrize(
    ("ports", "ephemeral", "left_out", "expected"),
    [
        ([8622, 29501], (32768, 60999), [8000], [(8622, 8622), (29501, 29501), (32768, 60999)]),
        ([8622, 29501], (1024, 65535), [8000, 8621], [(1024, 7999), (8001, 8620), (8622, 65535)]),
        ([8622], (20, 24), [], [(20, 21), (23, 24), (8622, 8622)]),
        ([8622, 8623], (8624, 8625), [], [(8622, 8625)]),
        ([8622], (1, 65535), [], [(1, 21), (23, 65535)]),
        ([8622], (40000, 40000), [40000], [(8622, 8622)]),
    ],
)
def test_what_is_closed_has_neither_the_port_of_ssh_nor_those_of_others(
    ports: list[int], ephemeral: tuple[int, int], left_out: list[int], expected: list[tuple[int, int]]
) -> None:
    assert unit_guard.closed(ports, ephemeral, left_out) == expected


@pytest.mark.parametrize(
    ("ports", "left_out", "said"),
    [
        ([22], [], "that is not that of ssh"),
        ([], [], "at least one"),
        (
            [8622, 8000],
            [8000, 9100],
            r"expected ports that the unit alone has, seen: \[8000\]; do: choose others",
        ),
    ],
)
def test_a_unit_has_ports_of_its_own(ports: list[int], left_out: list[int], said: str) -> None:
    with pytest.raises(GuardError, match=said):
        unit_guard.closed(ports, (32768, 60999), left_out)


def test_a_network_is_no_member() -> None:
    with pytest.raises(GuardError, match="do: name each member by its own"):
        unit_guard.members(["192.0.2.0/24"])


def test_one_transaction_makes_the_table_anew_or_removes_it() -> None:
    anew = ["add table inet sparkfleet_unit", "delete table inet sparkfleet_unit"]
    assert unit_guard.transaction(WANTED).splitlines() == [*anew, *WANTED]
    assert unit_guard.transaction(()).splitlines() == anew


def test_the_unit_comes_before_the_network_and_docker_and_after_what_empties_the_packet_filter() -> None:
    kept = unit_guard.files(WANTED, Path("/units"))
    path, unit = Path("/etc/sparkfleet/unit-guard/rules.nft"), Path("/units/sparkfleet-unit-guard.service")
    assert list(kept) == [path, unit]
    assert kept[path] == unit_guard.transaction(WANTED)
    lines = kept[unit].splitlines()
    assert "Before=network-pre.target docker.service shutdown.target" in lines
    assert "After=local-fs.target nftables.service" in lines
    assert "DefaultDependencies=no" in lines
    assert f"ExecStart=nft -f {path}" in lines
