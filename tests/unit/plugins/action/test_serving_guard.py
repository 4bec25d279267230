# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is refused before anything is touched on any host, and what is only warned of."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.sparkfleet.vllm.plugins.action import serving_guard
from helpers import actions
from helpers.serving import NOTHING_MORE

INPUTS: dict[str, Any] = {
    "image": "vllm/vllm-openai:v0.26.0@sha256:" + "a" * 64,
    "arguments": {"speculative-config": {"method": "mtp", "num_speculative_tokens": 1}},
    "extra_arguments": {},
    "models": {"body": {"mount": "/models/b"}},
    "patches": [],
    **NOTHING_MORE,
    "security": "least",
    "environment": {},
    "published": {},
    "measured_depth": 0,
    "allow_deeper": False,
    "refused": [],
    "acceptance_floor": 0.4,
    "minimum_drafts": 200,
}


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    texts: list[str] = []
    monkeypatch.setattr(serving_guard, "Display", lambda: SimpleNamespace(warning=texts.append))
    return texts


def guard(**over: Any) -> dict[str, Any]:
    return actions.run(serving_guard, {}, inputs=INPUTS | over)


def test_what_nobody_knows_anything_against_passes(warned: list[str]) -> None:
    assert guard()["changed"] is False
    assert warned == []


def test_every_refusal_is_in_the_text(warned: list[str]) -> None:
    published = {
        "source": "somebody",
        "deepest": 1,
        "because": "the second is hardly ever right",
        "figures": [{"num_speculative_tokens": 0, "tokens_per_second": 39.3, "rates": []}],
    }
    with pytest.raises(AnsibleActionFail) as failed:
        guard(
            refused=[{"vllm": ">=0.25,<0.27", "because": "it dies at the start"}],
            published=published,
            extra_arguments={"speculative-config": {"num_speculative_tokens": 2}},
        )
    first, *rest = str(failed.value).splitlines()
    assert "it dies at the start" in first
    assert "the second is hardly ever right" in "".join(rest)


def test_rules_of_an_inventory_that_are_none_are_refused(warned: list[str]) -> None:
    with pytest.raises(AnsibleActionFail, match="because: required and missing"):
        guard(refused=[{"vllm": "<1.0"}])


def test_options_that_are_unknown_here_are_warned_of_by_their_whole_name(warned: list[str]) -> None:
    guard(
        extra_arguments={
            "max-num-sequences": 2,
            "taken-away": None,
            "speculative-config": {"num_speculative_token": 1},
        }
    )
    names = [text.partition(":")[0] for text in warned]
    assert names == [
        "vllm_serve_extra_arguments.max-num-sequences",
        "vllm_serve_extra_arguments.speculative-config.num_speculative_token",
    ]


def test_a_mount_over_another_is_refused_before_a_host_is_asked(warned: list[str]) -> None:
    with pytest.raises(AnsibleActionFail, match="seen /models/b/x.jinja beside /models/b"):
        guard(mounts=[{"path": "x.jinja", "mount": "/models/b/x.jinja"}])


def test_what_keeps_a_container_from_the_least_rights_is_named(warned: list[str]) -> None:
    guard(devices=["/dev/infiniband"], ulimits={"memlock": -1, "stack": 67108864})
    device, memory = warned
    assert "less than the least rights: the container gets /dev/infiniband of the host" in device
    assert "lock memory without limit" in memory
    warned.clear()
    guard(ulimits={"memlock": 4096})
    assert "up to 4096 bytes" in "".join(warned)


def test_a_device_that_is_refused_is_no_warning(warned: list[str]) -> None:
    with pytest.raises(AnsibleActionFail, match="vllm_serve_allowed_devices"):
        guard(devices=["/dev/nvme0n1"])
    assert warned == []


def test_the_profile_of_a_unit_is_warned_of_and_one_that_cannot_serve_it_is_refused(
    warned: list[str],
) -> None:
    unit = {"topology": {"nodes": 2}, "entrypoint": ["vllm", "serve"]}
    guard(security="fabric", **unit)
    assert [text.partition(": ")[2].partition(",")[0] for text in warned] == [
        "the container uses the network of the host",
        "the container may lock memory without limit",
    ]
    with pytest.raises(
        AnsibleActionFail, match="expected vllm_serve_security: fabric for a unit of 2 Sparks"
    ):
        guard(**unit)
