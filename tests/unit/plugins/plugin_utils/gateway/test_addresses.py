"""From which addresses gateways come to the Sparks, by the inventory."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.gateway.addresses import of_gateways
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.gateway.refusal import GatewayError


@pytest.mark.parametrize(
    ("host", "variables", "expected"),
    [
        ("g", {"spark_address": "192.0.2.1", "ansible_host": "192.0.2.2"}, "192.0.2.1"),
        ("g", {"spark_address": "", "ansible_host": "192.0.2.2"}, "192.0.2.2"),
        ("192.0.2.3", {}, "192.0.2.3"),
        ("g", {"ansible_host": "2001:DB8::1"}, "2001:db8::1"),
    ],
)
def test_the_address_of_a_gateway(host: str, variables: dict[str, Any], expected: str) -> None:
    assert of_gateways([host], {host: variables}) == [expected]


@pytest.mark.parametrize("at", ["gate-1.example.com", "localhost", "127.0.0.1", "::1", "192.0.2.0/24"])
def test_what_another_host_cannot_be_known_by_is_refused(at: str) -> None:
    with pytest.raises(GatewayError) as refused:
        of_gateways(["gate-1"], {"gate-1": {"ansible_host": at}})
    assert str(refused.value).startswith("gate-1: expected an ")
    assert f"seen: {at}" in str(refused.value).replace("'", "")
    assert "do: set spark_address of that host" in str(refused.value)


def test_a_gateway_that_the_inventory_does_not_know_is_refused() -> None:
    with pytest.raises(GatewayError, match="gate-2: expected a host of the inventory"):
        of_gateways(["gate-1", "gate-2"], {"gate-1": {"ansible_host": "192.0.2.1"}})


def test_no_gateways_have_no_addresses() -> None:
    assert of_gateways([], {}) == []
