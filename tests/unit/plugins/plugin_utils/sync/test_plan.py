"""Fleets in data: what each step showed, and what follows."""

from __future__ import annotations

import copy

import pytest
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.sync import plan
from helpers.fan_out import BODY, DRAFT, WHOLE, Run, fetched, look, status

SKIPPED = {"skipped": True}


def test_a_fleet_where_all_is_in_place_has_nothing_to_do():
    run = Run(one=look(WHOLE), two=look(WHOLE))
    assert run.done and not run.plan["peers"] and not run.plan["describe"]


def test_a_new_fleet_fetches_once_and_fans_out():
    run = Run(one=look(address="10.0.0.1"), two=look(address="10.0.0.2"), three=look(address="10.0.0.3"))
    assert run.does("fetch") == {"one": [BODY, DRAFT]}
    assert run.does("later") == {"two": [BODY, DRAFT], "three": [BODY, DRAFT]}
    assert not run.does("receive") and run.plan["can_transfer"]
    run.fetch(one=fetched(BODY, DRAFT))
    assert run.plan["describe"] == {BODY: "one", DRAFT: "one"}
    run.described()
    assert run.does("seed") == {"one": [BODY, DRAFT]}
    assert run.does("receive") == {"two": [BODY, DRAFT], "three": [BODY, DRAFT]}
    assert run.plan["peers"] == {"one": "10.0.0.1", "two": "10.0.0.2", "three": "10.0.0.3"}
    run.transfer(
        one=status(to={"two": 1100}),
        two=status(commits=WHOLE, **{"from": {"one": 1100}}),
        three=status(commits=WHOLE, **{"from": {"one": 600, "two": 500}}),
    )
    assert run.done
    assert [known["hub_bytes"] for known in run.plan["fleet"].values()] == [1100, 0, 0]
    assert run.plan["fleet"]["three"]["from"] == {"one": 600, "two": 500}


def test_a_host_that_joins_costs_the_hub_nothing():
    run = Run(one=look(WHOLE), two=look(), three=look(WHOLE))
    assert not run.does("fetch")
    assert (run.does("seed"), run.does("receive")) == (
        {"one": [BODY, DRAFT], "three": [BODY, DRAFT]},
        {"two": [BODY, DRAFT]},
    )


@pytest.mark.parametrize(
    ("two", "three", "fetches"),
    [
        (look(missing={BODY: 100}), look(missing={BODY: 50}), "three"),
        (look(missing={BODY: 100}), look(kept=800), "two"),
        (look(missing={BODY: 300}), look(kept=800), "three"),
        (look(), look(), "one"),
    ],
)
def test_the_one_that_fetches_has_most_of_it_already(two, three, fetches):
    run = Run(one=look(), two=two, three=three)
    assert BODY in run.does("fetch")[fetches]
    assert sum(BODY in commits for commits in run.does("fetch").values()) == 1


def test_one_host_alone_just_fetches():
    run = Run(one=look(address=""))
    assert run.does("fetch") == {"one": [BODY, DRAFT]}
    run.fetch(one=fetched(BODY, DRAFT))
    assert run.done and not run.plan["peers"]


def test_hosts_of_another_recipe_are_no_peers():
    run = Run(
        one=look(commits=(DRAFT,)), two=look(commits=(DRAFT,), whole=WHOLE), other=look(commits=(BODY,))
    )
    assert run.does("fetch") == {"other": [BODY]}
    assert set(run.plan["peers"]) == {"one", "two"}


def test_without_fan_out_each_fetches_for_itself():
    run = Run(fan_out=False, one=look(WHOLE), two=look(), three=look())
    assert run.does("fetch") == {"two": [BODY, DRAFT], "three": [BODY, DRAFT]}
    run.fetch(two=fetched(BODY, DRAFT), three={"failed": True, "msg": "HTTP 503"})
    assert not run.plan["can_transfer"] and run.plan["hosts"]["three"]["problem"] == "HTTP 503"


def test_a_host_whose_fetch_failed_is_passed_over_and_then_receives():
    run = Run(one=look(), two=look())
    run.fetch(one={"failed": True, "msg": "disk full"})
    assert not run.plan["describe"]
    run.described().transfer().look(one=look(), two=look())
    assert run.does("fetch") == {"two": [BODY, DRAFT]}
    run.fetch(two=fetched(BODY, DRAFT)).described()
    assert run.does("receive") == {"one": [BODY, DRAFT]}
    run.transfer(one=status(commits=WHOLE, **{"from": {"two": 1100}}), two=status())
    assert run.done
    assert run.plan["fleet"]["one"]["remarks"] == ["could not fetch: disk full"]


def test_when_nobody_can_fetch_each_says_its_own_reason_or_the_others():
    run = Run(one=look(), two=look(), three=look())
    run.fetch(one={"failed": True, "msg": "HTTP 429"}).look(one=look(), two=look(), three=look())
    run.fetch(two={"failed": True, "msg": "HTTP 503"})
    problems = {host: does["problem"] for host, does in run.plan["hosts"].items()}
    assert problems["one"] == "HTTP 429" and problems["two"] == "HTTP 503"
    assert "one: HTTP 429 two: HTTP 503" in problems["three"] and "lab/b" in problems["three"]
    run.look(one=look(), two=look(), three=look()).fetch(three={"failed": True, "msg": "down"})
    assert run.plan["incomplete"] and not run.plan["can_transfer"]


def test_what_a_failed_fetch_has_brought_is_not_fetched_again():
    run = Run(one=look(), two=look())
    run.fetch(one={"failed": True, "msg": "HTTP 503"}).look(one=look((BODY,)), two=look())
    assert run.does("fetch") == {"two": [DRAFT]}
    assert run.does("receive") == {"two": [BODY]}


def test_a_host_that_sent_wrong_bytes_counts_for_nothing_until_it_is_hashed():
    run = Run(one=look(WHOLE), two=look(), three=look(WHOLE)).described()
    run.transfer(
        one=status(),
        two=status(commits=WHOLE, corrupt_from=["one"], **{"from": {"one": 9, "three": 1100}}),
    )
    assert run.plan["suspects"] == ["one"] and not run.done
    assert "gave two bytes that are not the lock's" in run.plan["hosts"]["one"]["problem"]
    run.look(one=look(unchecked=True), two=look(WHOLE), three=look(WHOLE), hashed={"one": look((DRAFT,))})
    assert not run.plan["suspects"]
    assert run.does("receive") == {"one": [BODY]} and "one" not in run.does("seed")
    run.described().transfer(one=status(commits=(BODY,)))
    assert run.done
    assert run.plan["fleet"]["one"]["remarks"] == ["sent wrong bytes to two", "hashed again"]


def test_a_host_that_finds_its_own_files_damaged_says_so_itself():
    run = Run(one=look(WHOLE), two=look(WHOLE), three=look()).described()
    run.transfer(
        three=status(commits=WHOLE, **{"from": {"two": 1100}}),
        stop={"one": status("failed", corrupt_from=["one"])},
    )
    assert run.plan["suspects"] == ["one"] and not run.done
    assert "files it holds are no longer the lock's" in run.plan["hosts"]["one"]["problem"]
    assert run.plan["fleet"]["one"]["remarks"] == ["found its own files damaged"]


def test_a_suspect_is_no_source_before_it_was_hashed():
    run = Run(one=look(WHOLE), two=look()).described()
    run.transfer(two=status("failed", problem="no good peer", corrupt_from=["one"]))
    assert run.does("fetch") == {"two": [BODY, DRAFT]} and not run.plan["describe"]


def test_a_suspect_with_nothing_left_to_hash_is_one_no_more():
    run = Run(one=look(WHOLE), two=look()).described()
    run.transfer(two=status(commits=WHOLE, corrupt_from=["one"]))
    run.look(one=look(), two=look(WHOLE), hashed={"one": SKIPPED})
    assert not run.plan["suspects"] and run.does("receive") == {"one": [BODY, DRAFT]}


def test_a_suspect_with_something_left_to_hash_stays_one():
    run = Run(one=look(WHOLE), two=look()).described()
    run.transfer(two=status(commits=WHOLE, corrupt_from=["one"]))
    run.look(one=look(WHOLE, unchecked=True), two=look(WHOLE), hashed={"one": SKIPPED})
    assert run.plan["suspects"] == ["one"]


def test_a_holder_that_cannot_describe_is_replaced():
    run = Run(one=look(WHOLE), two=look(WHOLE), three=look())
    run.describe(one={"failed": True, "msg": "sha256 is not the lock's"})
    assert run.plan["suspects"] == ["one"] and not run.plan["can_transfer"] and not run.plan["peers"]
    run.transfer().look(one=look(unchecked=True), two=look(WHOLE), three=look(), hashed={"one": look()})
    assert set(run.plan["describe"].values()) == {"two"}


def test_a_receiver_that_failed_says_why_and_tries_again():
    run = Run(one=look(WHOLE), two=look()).described()
    run.transfer(two=status("failed", problem="no room", **{"from": {"one": 7}}))
    assert run.plan["hosts"]["two"]["problem"] == "no room" and run.plan["can_transfer"]
    assert run.plan["fleet"]["two"]["from"] == {"one": 7}


def test_the_last_word_of_a_peer_counts():
    run = Run(one=look(WHOLE), two=look(WHOLE), three=look()).described()
    run.transfer(
        one=status(to={"three": 5}),
        three=status(commits=WHOLE, **{"from": {"one": 5}}),
        stop={"one": status(to={"three": 900}), "three": {"changed": False}},
    )
    assert run.plan["fleet"]["one"]["to"] == {"three": 900}
    assert run.plan["fleet"]["three"]["from"] == {"one": 5} and run.done


def test_a_peer_that_could_not_start():
    run = Run(one=look(WHOLE), two=look()).described()
    run.transfer(start={"two": {"failed": True, "msg": "port 6881 is taken"}}, two=SKIPPED)
    assert run.plan["hosts"]["two"]["problem"] == "port 6881 is taken"


def test_a_host_that_stopped_answering_is_no_holder():
    run = Run(one=look(WHOLE), two=look(), three=look()).described()
    run.batch.remove("one")
    run.transfer(two=status("failed", problem="lost one"), stop={"one": {"unreachable": True}})
    assert run.plan["fleet"]["one"]["excluded"] == "did not answer"
    assert run.does("fetch") == {"two": [BODY, DRAFT]}


def test_hosts_that_fail_at_the_look_take_no_part():
    run = Run(one={"failed": True, "msg": "no such interface"}, two=look(), three={"unreachable": True})
    assert run.plan["fleet"]["one"]["excluded"] == "no such interface"
    assert run.plan["fleet"]["three"]["excluded"] == "did not answer"
    run.look(one=look(WHOLE), two=look())
    assert run.does("fetch") == {"two": [BODY, DRAFT]}, "what it showed before it failed is stale"


def test_hosts_that_left_the_play_before_take_no_part():
    run = Run(one=look())
    run.batch = ["gone", "one"]
    run.look(one=look(), gone={})
    assert "gone" not in run.plan["fleet"]


def test_a_host_without_an_address_is_told_how_to_name_one():
    run = Run(one=look(WHOLE), two=look(address=""))
    assert not run.plan["can_transfer"] and run.plan["incomplete"]
    assert "model_sync_interface" in run.plan["hosts"]["two"]["problem"]


def test_a_large_fleet_seeds_with_few_for_one_receiver():
    run = Run(**{f"s{n}": look(WHOLE) for n in range(50)}, new=look())
    assert len(run.does("seed")) == plan.LEAST_SEEDS
    assert set(run.plan["describe"].values()) <= set(run.does("seed"))


def test_in_check_mode_the_plan_is_made_and_nothing_follows():
    run = Run(one=look() | {"check_mode": True}, two=look() | {"check_mode": True})
    assert run.does("fetch") == {"one": [BODY, DRAFT]} and run.does("later") == {"two": [BODY, DRAFT]}
    assert run.plan["check"] and not run.plan["can_transfer"]
    assert Run(one=look(), two=look()).plan["can_transfer"]


def test_rounds_are_counted_by_looks():
    run = Run(one=look(), two=look())
    assert run.plan["round"] == 1
    run.fetch(one={"failed": True, "msg": "x"})
    assert run.plan["round"] == 1
    assert run.look(one=look(), two=look()).plan["round"] == 2


def test_there_is_something_to_tell_unless_all_was_in_place():
    assert not Run(one=look(WHOLE), two=look(WHOLE)).plan["worth_reporting"]
    assert Run(one=look(WHOLE), two=look()).plan["worth_reporting"]
    run = Run(one=look()).fetch(one=fetched(*WHOLE))
    assert not run.plan["incomplete"] and run.plan["worth_reporting"]


def test_a_plan_is_plain_data_and_never_changed():
    run = Run(one=look(), two=look())
    before = copy.deepcopy(run.plan)
    plan.note(run.plan, "fetch", {"fetch": {"one": {"failed": True, "msg": "x"}}}, run.batch, True)
    assert run.plan == before


def test_a_text_is_cut_between_words():
    assert plan.short("one  two\nthree", 9) == "one two …"
    assert plan.short("one two", 9) == "one two"
    assert plan.short("x" * 20, 9) == "x" * 9 + " …"
