from __future__ import annotations

from ansible_collections.sparkfleet.vllm.plugins.module_utils._table import COLUMNS, render, row

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
    assert tuple(made) == COLUMNS
    assert list(made.values()) == [
        "spark-1",
        "a" * 12,
        "b" * 12,
        "d" * 12,
        "seen",
        "236",
        "69.1%",
        "52.6",
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


def test_columns_line_up():
    lines = render([row("spark-1", LOCK, GATE, None), row("a-much-longer-name", LOCK, {}, None)])
    assert len({line.index("aaaaaaaaaaaa") for line in lines[2:]}) == 1
    assert lines[0].startswith("host") and len(lines) == 4
