# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a member of a unit needs, from what all need by themselves."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.unit.change import (
    Host,
    UnitError,
    check_whole,
    together,
    whole,
)

MEMBERS = [{"host": "head", "address": "192.0.2.1"}, {"host": "worker", "address": "192.0.2.2"}]


def unit(rank: int, members: list[dict[str, str]] = MEMBERS, name: str = "pair") -> dict[str, Any]:
    return {"name": name, "rank": rank, "nodes": len(members), "members": members}


def own(state: str, **more: Any) -> dict[str, Any]:
    settled = state == "settled"
    return {"state": state, "anew": False, "back": True, "kept": settled, "on_record": settled} | more


def made(
    head: dict[str, Any], worker: dict[str, Any], records: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    """What becomes of both, which shall be one unit."""
    alone = records or {"head": {"recipe": "a"}, "worker": {"recipe": "b"}}
    hosts = {
        name: Host(own, {"recipe": "new", "unit": unit(rank)}, alone[name])
        for rank, (name, own) in enumerate({"head": head, "worker": worker}.items())
    }
    return [whole(name, together(name, hosts.get), ["other", *hosts]) for name in hosts]


@pytest.mark.parametrize(
    ("head", "worker", "expected"),
    [
        ("settled", "settled", ["settled", "settled"]),
        ("settled", "unproven", ["unproven", "unproven"]),
        ("settled", "replace", ["replace", "replace"]),
        ("unproven", "start", ["replace", "start"]),
        ("start", "settled", ["start", "replace"]),
        ("start", "start", ["start", "start"]),
    ],
)
def test_where_one_member_starts_all_do(head: str, worker: str, expected: list[str]) -> None:
    found = made(own(head), own(worker))
    assert [each["state"] for each in found] == expected
    stays = expected[0] not in ("replace", "start")
    assert [each["kept"] for each in found] == [stays and name == "settled" for name in (head, worker)]
    assert {each["on_record"] for each in found} == {expected == ["settled", "settled"]}
    assert [each["unit"] for each in found] == [
        {"name": "pair", "rank": rank, "members": ["head", "worker"]} for rank in (0, 1)
    ]


def test_a_host_whose_unit_or_versions_are_not_on_record_lets_all_be_proved_again() -> None:
    found = made(own("settled", on_record=False, kept=False), own("settled"))
    assert [each["state"] for each in found] == ["settled", "settled"], "nothing starts"
    assert [each["on_record"] for each in found] == [False, False]
    assert [each["kept"] for each in found] == [False, True]


def test_a_member_that_was_asked_before_gives_the_same_answer_afterwards() -> None:
    """Two hosts may have their turn at one task one after the other."""
    first, second = made(own("settled"), own("replace", back=False))
    assert made(first, own("replace", back=False)) == [first, second]


def test_only_the_container_of_the_member_itself_is_made_anew() -> None:
    found = made(own("replace", anew=True), own("settled"))
    assert [each["anew"] for each in found] == [True, False]


def recorded(rank: int, **more: Any) -> dict[str, Any]:
    return {"recipe": "former", "unit": unit(rank, name="former")} | more


@pytest.mark.parametrize(
    ("records", "back"),
    [
        ({"head": {"recipe": "a"}, "worker": {"recipe": "b"}}, True),
        ({"head": recorded(0), "worker": recorded(1)}, True),
        ({"head": recorded(1), "worker": recorded(0)}, True),
        ({"head": recorded(0), "worker": recorded(1, recipe="other")}, False),
        ({"head": recorded(0), "worker": {"recipe": "former"}}, False),
        ({"head": recorded(0), "worker": recorded(1, unit=unit(1, name="another"))}, False),
    ],
)
def test_all_go_back_to_one_former_state_or_none_does(records: dict[str, Any], back: bool) -> None:
    assert [each["back"] for each in made(own("replace"), own("replace"), records)] == [back, back]


def test_a_member_of_a_third_host_takes_that_along() -> None:
    left: dict[str, Any] = {
        "recipe": "b",
        "unit": unit(1, [{"host": "third", "address": "192.0.2.3"}, MEMBERS[1]]),
    }
    hosts = {
        "head": Host(own("replace"), {"unit": unit(0)}, {"recipe": "a"}),
        "worker": Host(own("replace"), {"unit": unit(1)}, left),
        "third": Host(own("replace"), {"recipe": "c"}, left | {"unit": left["unit"] | {"rank": 0}}),
    }
    found = {name: whole(name, together(name, hosts.get), list(hosts)) for name in hosts}
    assert {tuple(each["unit"]["members"]) for each in found.values()} == {("head", "worker", "third")}
    assert all(each["back"] for each in found.values())


def test_a_host_that_its_former_unit_has_left_behind_changes_alone() -> None:
    """Its record was not written when the others passed without it."""
    former = {"recipe": "a", "unit": unit(0, [*MEMBERS, {"host": "third", "address": "192.0.2.3"}])}
    hosts = {
        "head": Host(own("settled"), {"unit": unit(0)}, {"recipe": "a", "unit": unit(0)}),
        "worker": Host(own("settled"), {"unit": unit(1)}, {"recipe": "a", "unit": unit(1)}),
        "third": Host(own("replace"), {"recipe": "c"}, former),
    }
    found = {name: whole(name, together(name, hosts.get), list(hosts))["unit"] for name in hosts}
    assert [found[name]["members"] for name in hosts] == [["head", "worker"], ["head", "worker"], ["third"]]


def test_members_that_would_serve_different_recipes_are_no_unit() -> None:
    """Of a rollback: a record was not written when the unit passed last."""
    hosts = {
        "head": Host(own("replace"), {"recipe": "a", "unit": unit(0)}, None),
        "worker": Host(own("replace"), {"recipe": "b", "unit": unit(1)}, None),
    }
    with pytest.raises(UnitError, match="seen another unit or recipe on worker"):
        whole("head", together("head", hosts.get), list(hosts))


def test_a_unit_is_whole_in_a_run_or_refused() -> None:
    check_whole({"recipe": "a"}, [])
    check_whole({"unit": unit(1)}, ["worker", "other", "head"])
    with pytest.raises(UnitError, match="the unit pair in this run, seen none of head; nothing was touched"):
        check_whole({"unit": unit(1)}, ["worker", "other"])


def test_a_member_with_nothing_to_go_back_to_keeps_the_others_from_it() -> None:
    found = made(own("replace"), own("start", back=False), {"head": {"recipe": "a"}, "worker": None})
    assert [each["back"] for each in found] == [False, False]


@pytest.mark.parametrize("lacking", [None, {}, {"skipped": True}])
def test_a_member_that_was_not_compared_ends_it_for_all(lacking: Any) -> None:
    wanted = {"unit": unit(0)}
    worker = None if lacking is None else Host(lacking, wanted, None)
    hosts = {"head": Host(own("settled"), wanted, None), "worker": worker}
    with pytest.raises(UnitError, match=r"all of head, worker are ready.* seen that worker failed before"):
        whole("head", together("head", hosts.get), list(hosts))


def test_hosts_that_leave_a_unit_change_together_and_each_by_itself() -> None:
    """So that a unit can come back whole: its head alone would wait for a worker that serves something else."""
    hosts = {
        "head": Host(own("replace"), {"recipe": "alone"}, recorded(0)),
        "worker": Host(own("start"), {"recipe": "alone"}, recorded(1)),
        "other": Host(own("replace"), {"recipe": "alone"}, None),
    }
    first, second = (whole(name, together(name, hosts.get), list(hosts)) for name in ("head", "worker"))
    assert first["unit"] == second["unit"] == {"name": "", "rank": 0, "members": ["head", "worker"]}
    assert (first["state"], second["state"]) == ("replace", "start")
    assert first["back"] and second["back"]
    lost = {"head": hosts["head"], "worker": None}
    assert not whole("head", {"head": hosts["head"]}, ["head"])["back"], (
        "the inventory no longer has the worker"
    )
    with pytest.raises(UnitError, match="seen that worker failed before or is not in this run"):
        whole("head", lost, ["head"])
