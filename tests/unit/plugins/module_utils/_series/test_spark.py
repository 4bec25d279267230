"""What a Spark tells of itself, from the files of its state directory."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._series import spark
from ansible_collections.sparkfleet.vllm.plugins.module_utils._series.text import Sample

NOW = 1_764_500_000.0
SERVING: dict[str, Any] = {
    "recipe": "gemma",
    "container": {"image": "vllm/vllm-openai@sha256:" + "a" * 64},
    "models": {"body": {"path": "/srv/sparkfleet/models/org--body/" + "c" * 40, "mount": "/models/body"}},
    "files": [{"path": "/x/gemma4_mtp.py", "md5": "1" * 32, "sha256": "2" * 64}],
    "gate": {"served_model": "chat", "speculation": {"method": "mtp"}, "acceptance_floor": 0.4},
}
VERDICT: dict[str, Any] = {
    "version": 1,
    "looked_at": 1_764_499_990,
    "mode": "act",
    "recipe": "gemma",
    "container": None,
    "verdict": "bad",
    "reason": "wedged",
    "findings": [{"kind": "wedged", "severity": "act", "since": 1, "expected": "", "seen": "", "do": ""}],
    "speculation": {"drafts": 300, "acceptance_rate": 0.1, "floor": 0.4},
    "restarts": [NOW - 10, NOW - 3000, NOW - 4000],
    "agent": "down",
    "evidence": [],
}


def values(samples: list[Sample]) -> dict[str, float]:
    return {
        sample.name.removeprefix("sparkfleet_") + "".join(f" {value}" for value in sample.labels.values()): (
            sample.value
        )
        for sample in samples
    }


def state(**changed: Any) -> dict[str, Any]:
    return {"version": 1, "current": {"serving": SERVING | changed, "gate": {}}, "last_good": None}


def test_what_serves_and_the_floor_of_its_recipe() -> None:
    info, floor = spark.of_state(state())
    assert info.labels == {
        "recipe": "gemma",
        "model": "chat",
        "image": "sha256:" + "a" * 64,
        "lock": spark.locked(SERVING),
    }
    assert (floor.name, floor.value) == ("sparkfleet_acceptance_floor", 0.4)
    assert spark.of_state(None) == spark.of_state({"version": 1, "current": None}) == []


def test_without_speculation_there_is_no_floor() -> None:
    found = spark.of_state(state(gate={"served_model": "chat", "speculation": None, "acceptance_floor": 0}))
    assert [sample.name for sample in found] == ["sparkfleet_served_info"]


@pytest.mark.parametrize(
    "changed",
    [
        {"container": {"image": "vllm/vllm-openai@sha256:" + "b" * 64}},
        {"models": {"body": {"path": "/srv/sparkfleet/models/org--body/" + "d" * 40}}},
        {"files": []},
    ],
)
def test_the_digest_of_the_lock_changes_with_what_it_names(changed: dict[str, Any]) -> None:
    assert spark.locked(SERVING | changed) != spark.locked(SERVING)


def test_the_digest_of_the_lock_is_the_same_in_every_store() -> None:
    elsewhere = {"body": {"path": "/data/models/org--body/" + "c" * 40}}
    assert spark.locked(SERVING | {"models": elsewhere, "recipe": "other"}) == spark.locked(SERVING)


def test_what_the_gate_said() -> None:
    said = {
        "verdict": "fail",
        "at": NOW,
        "passed_at": None,
        "acceptance_rate": 0.1,
        "drafts": 230,
        "tokens_per_second": None,
    }
    assert values(spark.of_gate(said)) == {
        "gate_passed": 0,
        "gate_timestamp_seconds": NOW,
        "gate_acceptance_ratio": 0.1,
        "gate_drafts": 230,
    }
    assert values(spark.of_gate(said | {"verdict": "pass", "passed_at": NOW}))["gate_passed"] == 1
    assert spark.of_gate(None) == []


def test_what_the_watchdog_said() -> None:
    found = values(spark.of_watchdog(VERDICT, NOW))
    told = {name for name, value in found.items() if value == 1}
    assert told == {"watchdog_verdict bad", "watchdog_finding wedged", "watchdog_acts"}
    assert found["watchdog_finding canary"] == found["watchdog_verdict well"] == 0
    assert found["watchdog_restarts"] == 2
    assert found["watchdog_agent_up"] == 0
    assert found["watchdog_acceptance_ratio"] == 0.1
    assert spark.of_watchdog(None, NOW) == []


def test_a_run_and_since_when() -> None:
    assert values(spark.of_run(None)) == {"run_held": 0}
    assert values(spark.of_run({"since": "2026-11-30T20:00:00Z"})) == {
        "run_held": 1,
        "run_since_timestamp_seconds": 1_796_068_800,
    }
    assert values(spark.of_run({"since": "yesterday"})) == {"run_held": 1}


def test_every_series_says_what_it_is() -> None:
    everything = [
        *spark.of_state(state()),
        *spark.of_gate(
            dict.fromkeys(("at", "passed_at", "acceptance_rate", "drafts", "tokens_per_second"), 1)
            | {"verdict": "pass"}
        ),
        *spark.of_watchdog(VERDICT, NOW),
        *spark.of_run({"since": "2026-11-30T20:00:00Z"}),
    ]
    assert {sample.name for sample in everything} == set(spark.HELPS)
