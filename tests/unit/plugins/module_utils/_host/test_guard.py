"""Who may connect to a port that is kept, and how what keeps it differs from what should."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host import guard, port_guard
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host.guard import Guard, GuardError
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host.port_guard import JUMP, UNIT


def test_sources_are_sorted_by_their_numbers_each_once_and_apart_by_version() -> None:
    given = ["192.0.2.10", "10.0.0.0/8", "2001:DB8::A", "192.0.2.9/32", "2001:db8:0:0::/64", "192.0.2.10/32"]
    found = guard.sources(given)
    assert [str(each) for each in found[4]] == ["10.0.0.0/8", "192.0.2.9/32", "192.0.2.10/32"]
    assert [str(each) for each in found[6]] == ["2001:db8::/64", "2001:db8::a/128"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("gate-1", "seen: 'gate-1'; do: write its address: a rule is made before any name is known"),
        ("", "seen: ''; do: write its address"),
        ("192.0.2.300", "do: write its address"),
        ("192.0.2.7/24", "do: write 192.0.2.0/24 for the network, or the address alone"),
        ("0.0.0.0/0", "expected less than every address"),
        ("::/0", "expected less than every address"),
        ("127.0.0.1", "expected an address from which another host connects"),
        ("::1", "expected an address from which another host connects"),
        ("0.0.0.0", "expected an address from which another host connects"),
        ("224.0.0.5", "expected an address from which another host connects"),
        ("::ffff:192.0.2.7", "do: write it without zone or mapping"),
        ("fe80::1%eth0", "do: write it without zone or mapping"),
    ],
)
def test_what_is_no_source_is_refused(given: str, said: str) -> None:
    with pytest.raises(GuardError) as refused:
        guard.sources(["192.0.2.1", given])
    assert str(refused.value).startswith("sources: expected ")
    assert said in str(refused.value)


@pytest.mark.parametrize("given", [[0], [65536], [-1], [22], [8000, 22]])
def test_what_is_no_port_of_a_server_is_refused(given: list[int]) -> None:
    with pytest.raises(
        GuardError, match=r"expected a TCP port that is not that of ssh, seen: .*; do: correct it .x_port."
    ):
        guard.ports(given, "x_port")


def test_ports_are_sorted_each_once_and_at_least_one() -> None:
    assert guard.ports([9000, 8000, 9000], "x_port") == [8000, 9000]
    with pytest.raises(GuardError, match="at least one"):
        guard.ports([], "x_port")


def test_a_difference_is_shown_with_where_it_is() -> None:
    kept = Path("/etc/rules.v4")
    before = Guard({4: (), 6: ()}, {kept: "old\n"})
    after = Guard({4: (":SPARKFLEET", JUMP), 6: ()}, {kept: "new\n"}, "enabled", "active")
    assert guard.differences(before, after, UNIT, port_guard.named) == [
        {
            "before_header": "iptables, table raw",
            "after_header": "iptables, table raw",
            "before": "",
            "after": f":SPARKFLEET\n{JUMP}\n",
        },
        {"before_header": str(kept), "after_header": str(kept), "before": "old\n", "after": "new\n"},
        {
            "before_header": UNIT,
            "after_header": UNIT,
            "before": "",
            "after": "enabled\nactive\n",
        },
    ]
    assert guard.differences(after, after, UNIT, port_guard.named) == []
