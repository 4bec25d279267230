# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The address that gateways share: what is each one's part, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.gateway import plan
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.gateway.refusal import GatewayError
from helpers.gateway import inputs

SHARED = "192.0.2.9/24"
THREE = {f"gate-{number}": f"192.0.2.{number}" for number in (1, 2, 3)}


def virtual(host: str = "gate-1", given: Any = SHARED, gateways: dict[str, str] | None = None) -> Any:
    asked = inputs(virtual_address=given, host=host, gateways=THREE if gateways is None else gateways)
    return plan.plan(asked).as_data()["virtual"]


def test_without_one_there_is_nothing_to_do() -> None:
    assert virtual(given="") is None
    assert virtual(given="", gateways={}) is None


def test_all_are_one_router_and_the_first_of_the_inventory_comes_first() -> None:
    first, second, third = (virtual(name) for name in THREE)
    assert first["router"] == second["router"] == third["router"]
    assert 1 <= first["router"] <= 255
    assert first["priority"] > second["priority"] > third["priority"] > 0
    assert (second["own"], second["peers"]) == ("192.0.2.2", ("192.0.2.1", "192.0.2.3"))
    assert second["address"] == SHARED
    assert virtual(given="192.0.2.10/24")["router"] != first["router"]


def test_an_address_of_version_6() -> None:
    gateways = {"gate-1": "2001:db8::1", "gate-2": "2001:db8::2"}
    assert virtual(given="2001:db8::9/64", gateways=gateways)["address"] == "2001:db8::9/64"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"given": "192.0.2.9"}, "an address with the length of its prefix"),
        ({"given": "192.0.2.9/33"}, "an address with the length of its prefix"),
        ({"given": 7}, "an address with the length of its prefix"),
        ({"gateways": {"gate-1": "192.0.2.1"}}, "2 to 39 gateways"),
        ({"gateways": {f"gate-{n}": f"192.0.2.{n}" for n in range(1, 41)}}, "2 to 39 gateways"),
        ({"host": "gate-9"}, "gate-9 among them"),
        ({"gateways": THREE | {"gate-2": "gate-2"}}, "do: set spark_address"),
        ({"gateways": THREE | {"gate-2": "192.0.2.9"}}, "besides 192.0.2.9"),
        ({"gateways": THREE | {"gate-2": "2001:db8::2"}}, "an address of version 4"),
    ],
)
def test_what_nobody_could_share_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(GatewayError, match="expected .*, seen: .*; do: ") as refused:
        virtual(**given)
    assert said in str(refused.value)
