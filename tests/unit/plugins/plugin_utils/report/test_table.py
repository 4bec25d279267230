from __future__ import annotations

from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.report.table import (
    COLUMNS,
    columns,
    known,
    render,
    row,
)

LOCK = {
    "image": {"digest": "sha256:" + "a" * 64},
    "models": {"body": {"commit": "b" * 40}, "draft": {"commit": "d" * 40}},
    "patches": [{"md5": "locked"}],
}
GATE = {
    "verdict": "pass", "drafts": 236, "acceptance_rate": 0.6906, "decode_tokens_per_second": 52.61,
    "files": [{"md5": "seen"}],
}  # fmt: skip


def test_a_host_that_passed():
    made = row("spark-1", LOCK, GATE, None)
    assert columns([made]) == COLUMNS
    assert [made[name] for name in COLUMNS] == [
        "spark-1",
        "a" * 12,
        "b" * 12,
        "d" * 12,
        "seen",
        "236",
        "69.1%",
        "52.6",
        "-",
        "pass",
    ]


def test_a_host_that_failed_says_why_and_never_pass():
    failure = {"task": "Sync the models", "msg": "disk too small"}
    assert row("s", LOCK, {}, failure)["verdict"] == "FAILED: Sync the models"


def test_a_refusal_of_the_gate_shows_its_diagnosis_and_what_was_measured():
    refused = {"task": "gate", "diagnosis": "drafts_never_accepted", "drafts": 1020, "acceptance_rate": 0.0}
    made = row("s", LOCK, {}, refused | {"files": [{"md5": "seen"}]})
    assert made["verdict"] == "FAILED: drafts_never_accepted"
    assert (made["drafts"], made["accepted at 0"], made["patch md5"]) == ("1020", "0.0%", "seen")


def test_what_was_not_measured_is_not_shown_as_a_figure():
    made = row("s", {}, {}, None)
    assert made["drafts"] == made["accepted at 0"] == made["tok/s"] == "-"
    assert made["verdict"] == "not measured"
    assert row("s", LOCK, {"drafts": 200, "acceptance_rate": 0.0}, None)["accepted at 0"] == "0.0%"


def test_a_rate_that_is_not_measurable_is_shown_as_such_also_of_a_host_that_failed():
    rate = {"decode_tokens_per_second": None, "rate": {"client": 330504.9, "because": "expected pieces"}}
    assert row("s", LOCK, GATE | rate, None)["tok/s"] == "not measurable"
    assert (
        row("s", LOCK, {}, {"task": "gate", "diagnosis": "too_few_drafts"} | rate)["tok/s"]
        == "not measurable"
    )


def test_columns_line_up():
    lines = render([row("spark-1", LOCK, GATE, None), row("a-much-longer-name", LOCK, {}, None)])
    assert len({line.index("aaaaaaaaaaaa") for line in lines[2:]}) == 1
    assert lines[0].startswith("host") and len(lines) == 4


SERVED = {
    "container": {"image": "vllm/vllm-openai@sha256:" + "9" * 64},
    "models": {"body": {"path": "/srv/s/models/o--b/" + "8" * 40}},
}


def test_what_was_served_counts_and_not_what_was_to_be():
    made = row("s", LOCK, GATE, None, served=SERVED)
    assert (made["image"], made["body"], made["draft"]) == ("9" * 12, "8" * 12, "-")


def test_the_unit_of_a_host_has_a_column_where_there_is_one():
    alone = row("spark-1", LOCK, GATE, None)
    unit = {"name": "pair", "rank": 1, "members": []}
    candidate = known({"spark_candidate": {"serving": {"unit": unit}}})
    assert known({"spark_served": {"unit": unit}})["unit"] == candidate["unit"] == unit
    worker = row("spark-2", **candidate)
    lines = render([alone, worker], columns([alone, worker]))
    assert lines[0].split()[:3] == ["host", "unit", "image"]
    assert lines[2].split()[:3] == ["spark-1", "-", "a" * 12]
    assert lines[3].split()[:4] == ["spark-2", "pair,", "rank", "1"]
    assert known({})["unit"] is None and known({"spark_candidate": {}})["unit"] is None


def test_for_how_long_nothing_served():
    assert row("s", LOCK, GATE, None, window={"start": 1.2, "ready": 60.0, "gate": 71.6})["away"] == "72 s"


def test_a_host_whose_turn_never_came_has_not_failed():
    assert row("s", LOCK, {}, {"task": "wait", "diagnosis": "untouched"})["verdict"] == "untouched"


def test_a_rollback_is_told_however_it_ended():
    refused = {"task": "gate", "diagnosis": "drafts_never_accepted"}
    back = row("s", LOCK, GATE, refused, rollback={"passed": True, "outcome": ""})
    assert back["verdict"] == "FAILED: drafts_never_accepted; rolled back, and that passes"
    lost = row("s", LOCK, {}, refused, rollback={"passed": False, "outcome": ""})
    assert lost["verdict"].endswith("THE ROLLBACK FAILED, TOO")


def test_the_facts_of_a_run_fill_a_row():
    assert row("s", **known({"recipe_lock": LOCK, "spark_gate": GATE})) == row("s", LOCK, GATE, None)
    assert row("s", **known({}))["verdict"] == "not measured"
