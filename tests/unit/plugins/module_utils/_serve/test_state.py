from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._serve.state import (
    parse,
    rank_of,
    record,
    unit_of,
)

OLD, NEW = {"image": "a"}, {"image": "b"}


def test_the_first_spec_has_nothing_to_go_back_to():
    assert record(None, OLD, {"drafts": 236}) == {
        "version": 1,
        "current": {"serving": OLD, "gate": {"drafts": 236}},
        "last_good": None,
    }


@pytest.mark.parametrize(
    ("more", "rank"),
    [({}, 0), ({"unit": {"rank": 0}}, 0), ({"unit": {"rank": 3}}, 3), ({"unit": "x"}, 0), ({"unit": {"rank": "1"}}, 0)],
)  # fmt: skip
def test_the_rank_of_a_record(more, rank):
    assert rank_of(OLD | more) == rank


def test_the_same_spec_again_keeps_the_first_evidence():
    state = record(None, OLD, {"drafts": 236})
    assert record(state, OLD, {"drafts": 999}) == state


def test_the_same_spec_on_another_driver_is_new_evidence_and_nothing_to_go_back_to():
    state = record(record(None, OLD, {"drafts": 1}), NEW, {"drafts": 2, "host": {"driver": "580"}})
    after = record(state, NEW, {"drafts": 3, "host": {"driver": "590"}})
    assert after["current"] == {"serving": NEW, "gate": {"drafts": 3, "host": {"driver": "590"}}}
    assert after["last_good"] == state["last_good"]


def test_another_spec_keeps_the_one_before_to_go_back_to():
    state = record(record(None, OLD, {"drafts": 1}), NEW, {"drafts": 2})
    assert state["current"] == {"serving": NEW, "gate": {"drafts": 2}}
    assert state["last_good"] == {"serving": OLD, "gate": {"drafts": 1}}


def test_of_three_specs_the_oldest_is_on_record_no_more():
    state: dict[str, Any] = {}
    for number, spec in enumerate(({"image": "a"}, {"image": "b"}, {"image": "c"})):
        state = record(state or None, spec, {"drafts": number})
    assert state["current"]["serving"] == {"image": "c"}
    assert state["last_good"]["serving"] == {"image": "b"}
    assert '"a"' not in json.dumps(state)


SERVING = {
    "container": {"name": "vllm", "image": "a"},
    "models": {"body": {"path": "/srv/a", "mount": "/models/a"}},
    "files": [{"path": "/x", "md5": "1", "sha256": "2"}],
}
GOOD = {"version": 1, "current": {"serving": SERVING, "gate": {}}, "last_good": None}


def test_a_state_is_read_as_it_was_written():
    assert parse(json.dumps(GOOD)) == GOOD
    assert parse(json.dumps({"version": 1, "current": None})) == {"version": 1, "current": None}
    assert parse(None) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "[]",
        "5",
        "[" * 100_000,
        '{"version": 2}',
        *(
            json.dumps(GOOD | {which: entry})
            for which in ("current", "last_good")
            for entry in (
                {},
                5,
                {"serving": SERVING},
                {"serving": SERVING, "gate": 5},
                *(
                    {"serving": SERVING | {name: wrong}, "gate": {}}
                    for name, wrong in [
                        ("container", 5),
                        ("container", {}),
                        ("container", {"image": 5}),
                        ("models", []),
                        ("models", {"body": 5}),
                        ("models", {"body": {"path": 5}}),
                        ("files", {}),
                        ("files", [5]),
                        ("files", [{"path": "/x"}]),
                        ("files", [{"path": "/x", "sha256": 5}]),
                    ]
                ),
            )
        ),
    ],
)
def test_what_is_no_state_is_refused_by_name(text):
    with pytest.raises(ValueError):
        parse(text)


UNIT = {
    "members": [{"host": "a", "address": "192.0.2.11"}, {"host": "b", "address": "192.0.2.12"}],
    "port": 8622,
    "master_port": 29501,
}


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        (UNIT, (["192.0.2.11", "192.0.2.12"], [8622, 29501])),
        (UNIT | {"members": [{"host": "a"}, 5, {"address": 5}]}, ([], [8622, 29501])),
        (UNIT | {"port": "8622", "master_port": True}, (["192.0.2.11", "192.0.2.12"], [])),
        (UNIT | {"members": 5}, ([], [])),
        ({}, ([], [])),
        (5, ([], [])),
    ],
)
def test_the_members_of_a_unit_on_record_and_its_ports(unit, expected):
    assert unit_of(SERVING | {"unit": unit}) == expected
    assert unit_of(SERVING) == ([], [])
