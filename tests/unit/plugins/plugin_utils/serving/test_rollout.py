from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.serving.rollout import (
    BatchError,
    away,
    batches,
    blocking,
    change,
    changed,
    plan,
    size,
    window,
)

WANTED, OTHER = {"recipe": "new"}, {"recipe": "old"}


UNIT, HOST = "[Unit]", {"driver": "580"}


def info(recorded=None, status=None, text=UNIT, enabled=True, watches=True, policy="no", host=HOST):
    return {
        "state": {"current": {"serving": recorded, "gate": {"host": host}}} if recorded else None,
        "container": {"status": status, "restart_policy": policy} if status else None,
        "unit": {"text": text, "enabled": enabled, "watches": watches},
    }


@pytest.mark.parametrize(
    ("recorded", "status", "differs", "expected"),
    [
        (WANTED, "running", False, {"state": "settled", "back": False}),
        (OTHER, "running", False, {"state": "unproven", "back": True}),
        (None, "running", False, {"state": "unproven", "back": False}),
        (OTHER, "running", True, {"state": "replace", "back": True}),
        (None, "running", True, {"state": "replace", "back": False}),
        (WANTED, "running", True, {"state": "replace", "back": False}),
        (OTHER, "exited", True, {"state": "start", "back": True}),
        (OTHER, "restarting", True, {"state": "start", "back": True}),
        (None, None, True, {"state": "start", "back": False}),
    ],
)
def test_what_a_turn_means_for_a_host(recorded, status, differs, expected):
    seen = change(info(recorded, status), WANTED, differs, UNIT, HOST)
    assert {name: seen[name] for name in ("state", "back")} == expected
    # A server that is started anew gets its unit anew.
    assert seen["kept"] is (expected["state"] in ("settled", "unproven"))
    assert seen["on_record"] is (expected["state"] == "settled")


def test_a_server_that_holds_what_was_replaced_under_it_gets_a_new_start():
    seen = info(WANTED, "running")
    seen["container"]["stale"] = ["/models/body"]
    assert change(seen, WANTED, False, UNIT, HOST) == {
        "state": "replace", "anew": False, "back": False, "kept": False, "on_record": False,
    }  # fmt: skip
    seen["container"]["stale"] = []
    assert change(seen, WANTED, False, UNIT, HOST)["state"] == "settled"


@pytest.mark.parametrize(("status", "state"), [("running", "replace"), ("exited", "start")])
def test_a_container_in_which_programs_were_edited_is_made_anew(status, state):
    seen = info(WANTED, status)
    seen["container"]["edited"] = ["/opt/app/server.py"]
    made = change(seen, WANTED, status != "running", UNIT, HOST)
    assert (made["state"], made["anew"], made["on_record"]) == (state, True, False)


@pytest.mark.parametrize(
    ("here", "unit", "kept", "on_record"),
    [
        ({}, UNIT, True, True),
        ({"text": "", "enabled": False, "watches": False}, "", True, True),
        ({"text": "[Unit] edited"}, UNIT, False, False),
        ({"enabled": False}, UNIT, False, False),
        # Nobody starts it again when it dies, or two do.
        ({"watches": False}, UNIT, False, False),
        ({"policy": "on-failure"}, UNIT, False, False),
        # What shall not start at boot, and does.
        ({}, "", False, False),
        ({"text": "", "enabled": True}, "", False, False),
        # It passed on another driver, or before versions were recorded.
        ({"host": {"driver": "570"}}, UNIT, True, False),
        ({"host": None}, UNIT, True, False),
    ],
)
def test_what_runs_and_has_passed_may_still_be_written_or_recorded(here, unit, kept, on_record):
    seen = change(info(WANTED, "running", **here), WANTED, False, unit, HOST)
    assert (seen["state"], seen["kept"], seen["on_record"]) == ("settled", kept, on_record)


@pytest.mark.parametrize(
    ("value", "total", "expected"),
    [(1, 8, 1), ("3", 8, 3), ("25%", 8, 2), ("25%", 5, 1), ("25%", 1, 1), ("100%", 7, 7), ("12.5 %", 16, 2)],
)
def test_a_size_is_a_number_or_a_share(value, total, expected):
    assert size(value, total) == expected


@pytest.mark.parametrize("value", [0, -1, "0%", "101%", "some", "", None, 1.5])
def test_anything_else_is_refused(value):
    with pytest.raises(BatchError, match="spark_rollout_batches"):
        size(value, 8)


def test_batches_keep_the_order_and_the_last_size_goes_on():
    assert batches(list("abcdefgh"), [1, "25%", "100%"]) == [["a"], ["b", "c"], list("defgh")]
    assert batches(list("abcde"), [2]) == [["a", "b"], ["c", "d"], ["e"]]
    assert batches([], [1]) == []


def test_a_bad_size_is_refused_even_where_it_has_no_turn():
    with pytest.raises(BatchError):
        batches(["a"], [1, "many"])
    with pytest.raises(BatchError):
        batches(["a"], [])


def hosts(**states):
    return {host: {"spark_change": {"state": state}} for host, state in states.items()}


def test_who_has_nothing_to_lose_comes_first_and_all_at_once():
    made = plan(
        hosts(a="replace", b="start", c="settled", d="unproven", e="replace", f="replace"),
        [1, "100%"],
    )
    assert [batch["hosts"] for batch in made] == [["b", "c", "d"], ["a"], ["e", "f"]]
    assert [batch["earlier"] for batch in made] == [[], ["b", "c", "d"], ["b", "c", "d", "a"]]
    assert [batch["said"] for batch in made] == [
        "hosts with nothing to lose: b, c, d",
        "batch 1 of 2: a",
        "batch 2 of 2: e, f",
    ]


def test_a_host_that_was_not_prepared_has_no_turn_and_holds_nobody():
    known = hosts(a="replace", b="replace", c="replace", d="replace")
    known["a"]["spark_failure"] = {"msg": "disk full"}
    # Its task was skipped, as on a host that is not set up yet.
    known["b"]["spark_change"] = {"changed": False, "skipped": True}
    del known["d"]["spark_change"]
    assert [batch["hosts"] for batch in plan(known, [1])] == [["c"]]


def test_shares_count_the_hosts_that_change():
    known = hosts(**dict.fromkeys("abcd", "settled"), **dict.fromkeys("efgh", "replace"))
    assert [len(batch["hosts"]) for batch in plan(known, ["50%"])] == [4, 2, 2]


def unit(*members, state="replace", **more):
    return {
        host: {"spark_change": {"state": state, "unit": {"rank": rank, "members": list(members)}} | more}
        for rank, host in enumerate(members)
    }


def test_the_members_of_a_unit_have_their_turn_together_in_the_place_of_the_head():
    known = hosts(a="replace", b="replace") | unit("c", "e") | hosts(d="replace") | unit("g", "f")
    made = plan(known, [1, "50%", "100%"])
    # Five units: the sizes are one, two and all that are left.
    assert [batch["hosts"] for batch in made] == [["a"], ["b", "c", "e"], ["d", "g", "f"]]
    assert made[1]["earlier"] == ["a"]
    # A worker gets no requests. Its own server of before may have.
    assert made[1]["traffic"] == {"taken": ["b", "c", "e"], "admitted": ["b", "c"]}


def test_a_unit_has_something_to_lose_where_one_member_has():
    known = unit("a", "b", state="start") | unit("c", "d")
    known["d"]["spark_change"]["state"] = "start"
    assert [batch["hosts"] for batch in plan(known, [1])] == [["a", "b"], ["c", "d"]]


@pytest.mark.parametrize("lacks", ["a", "b"])
def test_a_unit_with_a_member_that_failed_waits_for_it_and_nobody_waits_for_the_unit(lacks):
    known = unit("a", "b") | hosts(c="replace")
    known[lacks]["spark_failure"] = {"msg": "disk full"}
    (waits,) = {"a", "b"} - {lacks}
    first, last = plan(known, [1])
    assert (first["hosts"], first["earlier"]) == (["c"], [])
    assert (last["hosts"], last["earlier"]) == ([waits], [lacks])
    assert last["traffic"] == {"taken": [], "admitted": []}
    assert last["said"] == f"units that are not whole: {waits}"
    del known[lacks]
    assert plan(known, [1])[-1] == last, "nor has it, where the other is not in the play"


def test_a_unit_goes_back_whole_or_not_at_all():
    known = unit("a", "b", back=True) | unit("c", "d", back=True)
    for host in "abc":
        known[host]["spark_proven"] = True
    assert changed(known) == ["a", "b"]


def test_the_window_is_counted_from_the_stop():
    stopped = 1767225600.0 + 8
    gate = {
        "container": {"started_at": "2026-01-01T00:00:10.500000000Z"},
        "ready_at": stopped + 60,
        "passed_at": stopped + 71.26,
    }
    assert window(gate, stopped) == {"start": 2.5, "ready": 60.0, "gate": 71.3}
    assert window(gate, None) is None
    worker = {name: gate[name] for name in ("container", "passed_at")}
    assert window(worker, stopped) is None, "it answers nobody"
    del gate["passed_at"]
    assert window(gate, stopped) is None


def test_how_long_a_host_was_away_follows_from_the_facts_of_its_run():
    gate = {
        "container": {"started_at": "2026-01-01T00:00:10Z"},
        "ready_at": 1767225668.0,
        "passed_at": 1767225680.0,
    }
    facts = {
        "spark_change": {"state": "replace"},
        "spark_started": {"made": True, "stopped_at": 1767225608.0},
        "spark_gate": gate,
    }
    assert away(facts) == {"start": 2.0, "ready": 60.0, "gate": 72.0}
    assert away(facts | {"spark_change": {"state": "settled"}}) is None, "it was only measured"
    assert away(facts | {"spark_started": {"made": True, "stopped_at": None}}) is None, "nothing had served"
    assert away({name: facts[name] for name in ("spark_change", "spark_started")}) is None, (
        "nothing has passed"
    )
    assert away({}) is None


def test_sizes_and_hosts_may_come_as_a_text_with_commas():
    assert batches(list("abcd"), "1,50%,100%") == [["a"], ["b", "c"], ["d"]]
    assert changed({}, "b,a") == ["a", "b"]


def test_a_rollback_is_for_hosts_that_passed_with_something_else_and_for_no_others():
    hosts: dict[str, dict[str, Any]] = {
        "passed": {"spark_change": {"back": True}, "spark_proven": True},
        "brought-back": {"spark_change": {"back": True}, "spark_proven": False},
        "first-time": {"spark_change": {"back": False}, "spark_proven": True},
        "not-its-turn": {"spark_change": {"back": True}},
        "not-prepared": {},
    }
    assert changed(hosts, ["canary"]) == ["canary", "passed"]


def test_a_host_that_has_not_passed_holds_those_after_it():
    """Also one that was lost, of which nothing is known."""
    passed = {"passed": {"spark_proven": True}}
    assert blocking(passed | {"failed": {"spark_proven": False}, "lost": {}}) == ["failed", "lost"]
    assert blocking(passed) == blocking({}) == []
