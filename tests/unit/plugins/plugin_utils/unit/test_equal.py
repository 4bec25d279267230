# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What may differ between the members of a unit, and what may not."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.unit import equal
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.unit.members import UnitError
from helpers import unit

HOST = {"driver": "580.95", "toolkit": "1.18.0", "engine": "29.1.3"}


def record(rank: int = 0) -> dict[str, Any]:
    head = ["--host", "192.0.2.1", "--port", "8000"]
    ranked = ["--nnodes", "2", "--node-rank", str(rank), *(["--headless"] if rank else [])]
    entrypoint = ["python3", "/opt/sparkfleet/unit", "--rank", str(rank), "--", "vllm", "serve"]
    devices = f"rocep{rank}s0f0"
    return {
        "recipe": "r",
        "container": {
            "name": "sparkfleet-vllm",
            "image": "o/i@sha256:" + "a" * 64,
            "command": ["/models/b", *([] if rank else head), "--max-model-len", "8192", *ranked],
            "env": {"HF_HUB_OFFLINE": "1", **unit.member(rank)["environment"], "NCCL_IB_HCA": devices},
            "volumes": [f"/srv/{rank}/models/o--b/1:/models/b:ro", f"/srv/{rank}/cache/x:/root/.triton:rw"],
            "entrypoint": entrypoint,
            "labels": {"sparkfleet.vllm.instead": str(rank)},
            "network_mode": "host",
            "ulimits": ["memlock:-1:-1"],
        },
        "models": {"body": {"path": f"/srv/{rank}/models/o--b/1", "mount": "/models/b"}},
        "files": [
            {"path": "/site/a.py", "md5": "m", "sha256": "1", "host_path": f"/srv/{rank}/patches/1/a.py"}
        ],
        "unit": {"name": "pair", "rank": rank, "nodes": 2, "port": 8622, "master_port": 29501},
    }


def members(change: Any = None, **versions: str) -> dict[str, Any]:
    """A unit whose worker is changed."""
    worker = copy.deepcopy(record(1))
    if change:
        change(worker)
    return {"spark-1": (record(0), HOST), "spark-2": (worker, HOST | versions)}


def test_what_follows_from_rank_and_host_may_differ() -> None:
    assert equal.differences(members()) == []
    assert equal.differences(members(engine="29.4.0", toolkit="1.17.0")) == []


def test_a_record_of_before_the_unit_differs_from_one_of_it() -> None:
    told = equal.differences(members(lambda serving: serving.pop("unit")))
    assert told[0] == 'unit name: spark-1 "pair", spark-2 none'


def container(name: str, value: Any) -> Any:
    return lambda serving: serving["container"].__setitem__(name, value)


def command(old: str, new: str) -> Any:
    return lambda serving: container(
        "command", [new if w == old else w for w in serving["container"]["command"]]
    )(serving)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (container("image", "o/i@sha256:" + "b" * 64), ["image: spark-1 o/i@sha256:aaa", ", spark-2 o/i@sha256:bbb"]),
        (lambda serving: serving["models"]["body"].update(path="/srv/1/models/o--b/2"), ["model body: spark-1 o--b/1, spark-2 o--b/2"]),
        (lambda serving: serving["models"].update(draft={"path": "/s/o--d/2"}), ["model draft: spark-1 none, spark-2 o--d/2"]),
        (lambda serving: serving["files"][0].update(sha256="2"), ["patch /site/a.py: spark-1 1, spark-2 2"]),
        (lambda serving: serving["files"].clear(), ["patch /site/a.py: spark-1 1, spark-2 none"]),
        (command("8192", "1024"), ["argument --max-model-len: spark-1 8192, spark-2 1024"]),
        (command("/models/b", "/models/c"), ["the model: spark-1 /models/b, spark-2 /models/c"]),
        (lambda serving: serving["container"]["command"].append("--enforce-eager"), ["argument --enforce-eager: spark-1 none, spark-2 true"]),
        (lambda serving: serving["container"]["env"].update(VLLM_USE_V1="0"), ["environment VLLM_USE_V1: spark-1 none, spark-2 0"]),
        (lambda serving: serving["container"]["env"].update(NCCL_IB_DISABLE="1"), ["environment NCCL_IB_DISABLE: spark-1 0, spark-2 1"]),
        (container("entrypoint", ["python3", "x", "--", "/e.sh", "vllm", "serve"]), ["entrypoint: spark-1 vllm serve, spark-2 /e.sh vllm"]),
        (lambda serving: serving["container"]["volumes"].pop(), ["mounts: spark-1 /models/b:ro /root/.triton:rw, spark-2 /models/b:ro"]),
        (container("network_mode", "bridge"), ['network_mode: spark-1 "host", spark-2 "bridge"']),
        (lambda serving: serving["unit"].update(master_port=29502), ["unit master_port: spark-1 29501, spark-2 29502"]),
        (lambda serving: serving.update(recipe="s"), ["recipe: spark-1 r, spark-2 s"]),
    ],
)  # fmt: skip
def test_all_else_is_told_with_what_each_has(change: Any, says: list[str]) -> None:
    (told,) = equal.differences(members(change))
    assert all(said in told for said in says), told


def test_driver_and_kind_of_engine_are_told() -> None:
    assert equal.differences(members(driver="570.1")) == ["driver: spark-1 580.95, spark-2 570.1"]
    assert equal.differences(members(engine="20.10.24")) == ["engine: spark-1 Docker 29, spark-2 Docker 20"]


def known(fleet: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        name: {"spark_candidate": {"serving": serving, "stamps": []}, "spark_host": host}
        for name, (serving, host) in fleet.items()
    }


def test_equal_members_pass() -> None:
    equal.check("pair", known(members()))


def test_members_that_differ_are_refused_with_everything_at_once() -> None:
    seen = known(members(command("8192", "1024"), driver="570.1"))
    with pytest.raises(UnitError) as refused:
        equal.check("pair", seen)
    said = str(refused.value)
    assert said.startswith(
        "expected the members of the unit pair to be equal but for their rank, seen argument --max-model-len: "
    )
    assert "; driver: spark-1 580.95, spark-2 570.1; give all of them" in said and said.endswith(
        "Nothing was touched"
    )


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({}, "seen spark-2 failed before, or is not in this run; mend that"),
        (
            {"spark_failure": {"task": "Look", "msg": "no disk"}},
            r"seen spark-2 failed \(Look: no disk\); mend that",
        ),
        ({"spark_failure": {"task": "Look"}, "spark_candidate": {}}, r"seen spark-2 failed \(Look\)"),
    ],
)
def test_a_member_that_was_not_prepared_holds_all(state: dict[str, Any], says: str) -> None:
    with pytest.raises(UnitError, match=says):
        equal.check("pair", {**known(members()), "spark-2": state})
