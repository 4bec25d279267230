from __future__ import annotations

from ansible_collections.sparkfleet.vllm.plugins.module_utils._swarm import shares
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.report import table
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.sync import plan as fleet_plan
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.sync import report
from helpers.fan_out import BODY, DRAFT, WHOLE, Run, fetched, look, status


def test_a_large_fleet_says_less_often_how_far_it_is():
    assert report.pace(2) == report.pace(10) == 5.0
    assert report.pace(100) == 50.0


def test_a_large_fleet_names_only_those_that_gave_most():
    counts = {f"s{n}": n for n in range(1, 11)}
    assert shares.shares(counts) == "s10 18 %, s9 16 %, s8 15 %, s7 13 %, 6 more 38 %"
    assert shares.shares({"a": 0}) == "nobody"
    assert shares.shares({"a": 999, "b": 1}) == "a 100 %"


def states(plan, hosts, check=False):
    return {row["host"]: row["state"] for row in report.rows(plan, hosts, check)}


def test_a_row_for_every_kind_of_end():
    run = Run(
        one=look(),
        two=look(),
        three=look(WHOLE, commits=(DRAFT,)),
        four=look(),
        five={"failed": True, "msg": "no such interface"},
        six={"unreachable": True},
    )
    run.fetch(one=fetched(BODY, DRAFT)).described()
    run.transfer(
        one=status(to={"two": 1100}),
        two=status(commits=WHOLE, **{"from": {"one": 1100}}),
        four=status("failed", problem="no room"),
    )
    assert states(run.plan, ["one", "two", "three", "four", "five", "six", "seven"]) == {
        "one": "fetched",
        "two": "received",
        "three": "present",
        "four": "FAILED: no room",
        "five": "FAILED: no such interface",
        "six": "did not answer",
        "seven": "took no part",
    }
    one, two, *_ = (report.texts(row) for row in report.rows(run.plan, ["one", "two"], False))
    assert (one["from the Hub"], one["sent"], one["of whom"], one["seconds"]) == (
        "0.0 MB",
        "0.0 MB",
        "-",
        "4.0",
    )
    assert (two["from the Hub"], two["of whom"], two["seconds"]) == ("-", "one 100 %", "4.0")


def test_a_repair_is_one_however_it_was_mended():
    run = Run(one=look(missing={BODY: 10}))
    run.fetch(one=fetched(BODY, DRAFT, state="repaired"))
    assert states(run.plan, ["one"]) == {"one": "repaired"}


def test_the_rate_is_that_of_all_bytes_that_came():
    run = Run(one=look(), two=look())
    run.fetch(one=fetched(BODY, DRAFT)).described()
    run.transfer(two=status(commits=WHOLE, **{"from": {"one": 1100}}))
    assert [row["bytes_per_second"] for row in report.rows(run.plan, ["one", "two"], False)] == [
        275,
        275,
    ]


def test_check_mode_says_what_would_come_from_where():
    run = Run(one=look(), two=look((BODY,)), three=look(WHOLE, commits=(DRAFT,), address=""))
    found = {row["host"]: row for row in report.rows(run.plan, ["one", "two", "three"], True)}
    assert (found["one"]["state"], found["one"]["hub_bytes"]) == ("would receive", 0)
    assert (found["two"]["state"], found["two"]["hub_bytes"]) == ("would fetch", 100)
    assert found["one"]["from"] == {"two": 1100}
    assert found["three"]["state"] == "present"
    assert not any(row["problem"] for row in found.values())


def test_the_table_lines_up_and_knows_every_column():
    run = Run(one=look(), two=look())
    run.fetch(one={"failed": True, "msg": "HTTP 429 from http://hub: too many requests"})
    texts = [report.texts(row) for row in report.rows(run.plan, ["one", "two"], False)]
    lines = table.render(texts, report.COLUMNS)
    assert lines[0].split() == " ".join(report.COLUMNS).split()
    assert "could not fetch: HTTP 429" in lines[2]
    assert fleet_plan.short("x") == "x"
