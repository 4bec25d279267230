"""An upgrade of the collection restarts nothing. The record of 0.1.0 was written by the code of 0.1.0."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._serve import former
from ansible_collections.sparkfleet.vllm.plugins.module_utils._serve import state as serve_state
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.serving.record import serving_record

FORMER: dict[str, Any] = json.loads(Path(__file__).with_name("record_of_0_1_0.json").read_text())
STATE = FORMER["state"]
RECORDED = STATE["current"]["serving"]
ADDED = {
    "store": "/srv/sparkfleet",
    "log_driver": "json-file",
    "log_options": {"max-size": "50m"},
    "entrypoint": [],
    "caches": {},
    "devices": [],
    "allowed_devices": ["/dev/infiniband"],
    "ulimits": {},
    "mounts": [],
    "host_environment": {},
    "host_facts": {"address": "192.0.2.7", "interface": "", "name": "spark-7"},
    "allowed_paths": [],
}


def wanted(**over: Any) -> dict[str, Any]:
    return serving_record(copy.deepcopy(FORMER["inputs"]) | ADDED | over)


def test_the_same_inputs_make_another_record_now_and_the_recorded_one_stays():
    assert wanted() != RECORDED
    assert former.as_recorded(wanted(), STATE) == RECORDED


def test_what_the_shipped_recipes_have_since_waits_as_well():
    arguments = FORMER["inputs"]["arguments"] | {"shutdown-timeout": 120}
    assert former.as_recorded(wanted(arguments=arguments), STATE) == RECORDED


@pytest.mark.parametrize(
    "over",
    [
        {"environment": {"A": 2}},
        {"image": "vllm/vllm-openai@sha256:" + "b" * 64},
        {"arguments": FORMER["inputs"]["arguments"] | {"max-num-seqs": 8}},
        {"bind": "0.0.0.0"},
        {"acceptance_floor": 0.5},
        {"models": {"body": FORMER["inputs"]["models"]["body"]}},
        {"shm_size": "1g"},
        {"entrypoint": ["vllm", "serve"]},
    ],
)
def test_what_somebody_chooses_brings_the_record_of_this_release(over):
    assert former.as_recorded(wanted(**over), STATE) == wanted(**over)


def test_a_record_of_this_release_is_held_to_all_of_it():
    state = serve_state.record(None, wanted(), {})
    other = wanted(log_options={"max-size": "1m"})
    assert former.as_recorded(other, state) == other


@pytest.mark.parametrize("state", [None, {}, {"version": 1, "current": None}])
def test_a_host_that_never_passed_gets_this_release(state):
    assert former.as_recorded(wanted(), state) == wanted()


def test_its_state_file_is_one_that_is_read():
    assert serve_state.parse(json.dumps(STATE)) == STATE
