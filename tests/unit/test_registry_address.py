"""Where the fleet meets its registry."""

from __future__ import annotations

import pytest
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils import _registry_address

FACTS = {"ansible_enp1s0f0_100": {"ipv4": {"address": "192.0.2.7"}}}
ONE = {"host": "one", "address": "", "interface": "", "port": 5000, "facts": {}, "met_at": "one.example.com"}


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({}, "http://one.example.com:5000"),
        ({"host": ""}, ""),
        ({"address": "192.0.2.1"}, "http://192.0.2.1:5000"),
        ({"address": "fd00::1", "port": 5001}, "http://[fd00::1]:5001"),
        ({"interface": "enp1s0f0.100", "facts": FACTS}, "http://192.0.2.7:5000"),
        ({"address": "192.0.2.1", "interface": "enp1s0f0.100", "facts": FACTS}, "http://192.0.2.1:5000"),
        # Its host did not answer, or has no such interface, or no address on it: nobody is sent elsewhere.
        ({"interface": "enp1s0f0.100"}, ""),
        ({"interface": "enp1s0f0.100", "facts": {"ansible_enp1s0f0_100": {}}}, ""),
    ],
)
def test_url(given, url):
    assert _registry_address.url(**ONE | given) == url
