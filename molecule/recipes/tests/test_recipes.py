"""What a recipe of the catalogue makes of a host, in the order in which the host is changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

SCENARIO = Path(__file__).parents[1]
ROOT = SCENARIO.parents[1]
RELEASE, VANILLA = "huihui-gemma4-mtp-n1-release", "gemma4-mtp-n4"
# The draft of the lab is right on 690 of 1000 tokens. A text of 256 tokens walks a part of that cycle.
SHARE = 0.69
TOLERANCE = 0.05


def run(playbook: str, *options: str, fails: bool = False, **extra: Any) -> str:
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            f"--inventory={SCENARIO / 'inventory'}",
            f"--extra-vars={json.dumps(extra)}",
            *options,
            str(ROOT / "playbooks" / f"{playbook}.yml"),
        ],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"ANSIBLE_NOCOLOR": "1"},
    )
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stdout


def recorded(sudo) -> dict[str, Any]:
    return dict(json.loads(sudo("cat /var/lib/sparkfleet/state.json"))["current"])


def life(sudo) -> str:
    return str(
        sudo("docker inspect --format '{{.Id}} {{.State.StartedAt}} {{.State.Running}}' sparkfleet-vllm")
    )


def locked(recipe: str) -> dict[str, Any]:
    return dict(yaml.safe_load((SCENARIO / "lab-locks" / f"{recipe}.lock.yml").read_text()))


def test_a_release_serves_without_a_patch_and_passes(sudo):
    record = recorded(sudo)
    assert record["serving"]["recipe"] == RELEASE
    assert record["serving"]["files"] == [] and locked(RELEASE)["patches"] == []
    assert record["serving"]["container"]["image"] == locked(RELEASE)["image"]["pinned"]
    assert not any("gemma4_mtp.py" in volume for volume in record["serving"]["container"]["volumes"])
    assert record["serving"]["gate"]["speculation"]["num_speculative_tokens"] == 1
    assert record["gate"]["acceptance_rate"] == pytest.approx(SHARE, abs=TOLERANCE)


def test_off_is_measured_against_on_and_the_host_is_left_as_it_was(sudo, tmp_path):
    before = recorded(sudo)
    run(
        "benchmark",
        spark_recipe=RELEASE,
        benchmark_output=str(tmp_path),
        speculation_sweep_repeats=1,
        speculation_sweep_concurrency=[1, 2],
    )
    assert recorded(sudo) == before
    command = json.loads(sudo("docker inspect sparkfleet-vllm"))[0]["Config"]["Cmd"]
    assert command == before["serving"]["container"]["command"]
    sweep = json.loads((tmp_path / "benchmark.json").read_text())["hosts"]["catalogue"]["sweep"]
    measured = {
        (each["speculation"] or {}).get("num_speculative_tokens", 0): each["measurement"]
        for each in sweep["candidates"]
    }
    assert set(measured) == {0, 1}
    for load in measured[0]["loads"]:
        assert (load["drafts"], load["rates"], load["mean_acceptance_length"]) == (0, [], 1)
    for load in measured[1]["loads"]:
        assert load["rates"] == pytest.approx([SHARE], abs=TOLERANCE)
        assert load["tokens"] == 256 * load["requests"] == 256 * 4 * load["concurrency"]
        # Every token is the body's own or an accepted one; the first of an answer comes before any draft.
        assert load["drafts"] + load["accepted"] == pytest.approx(load["tokens"], rel=0.02)
        assert load["foreign_share"] == 0 and 0 < load["kv_cache_usage"] < 1
        assert all(kind["drafts"] > 0 for kind in load["kinds"].values())


def test_a_vllm_that_the_recipe_refuses_is_told_by_its_image_and_nothing_is_stopped(sudo):
    """Its tag says another release. The lab's image holds 0.32.0."""
    before = life(sudo)
    rules = [{"vllm": "==0.32", "because": "the test says so"}]
    output = run("site", fails=True, spark_recipe=VANILLA, vllm_serve_refused=rules)
    assert "version_refused" in output or "the test says so" in output
    assert life(sudo) == before


def test_the_vanilla_body_with_four_tokens_takes_its_place(sudo):
    before = recorded(sudo)
    output = run("site", spark_recipe=VANILLA)
    assert "pass" in output
    state = json.loads(sudo("cat /var/lib/sparkfleet/state.json"))
    record = state["current"]
    assert record["serving"]["recipe"] == VANILLA
    assert record["serving"]["gate"]["speculation"]["num_speculative_tokens"] == 4
    assert state["last_good"]["serving"] == before["serving"]
    gate = record["gate"]
    rates = [accepted / gate["drafts"] for accepted in gate["accepted_per_position"]]
    # A position counts only if all before it were right: about a power of the share, position by position.
    assert rates == pytest.approx([SHARE**position for position in range(1, 5)], abs=2 * TOLERANCE)
    assert rates == sorted(rates, reverse=True) and rates[3] > 0


def test_deeper_than_what_paid_is_refused_with_the_figures_before_any_host(sudo):
    before = life(sudo)
    deeper = {"speculative-config": {"num_speculative_tokens": 4}}
    output = run("site", fails=True, spark_recipe=RELEASE, vllm_serve_extra_arguments=deeper)
    assert "at most 1" in output and "52.6 tok/s" in output and "vllm_serve_allow_deeper" in output
    assert life(sudo) == before
