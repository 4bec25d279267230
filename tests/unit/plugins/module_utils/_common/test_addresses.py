from __future__ import annotations

from ansible_collections.sparkfleet.vllm.plugins.module_utils._common.addresses import addresses


def test_the_loopback_has_its_address_and_so_has_no_other():
    found = addresses()
    assert found["lo"] == "127.0.0.1"
    assert all(not address.startswith("127.") for name, address in found.items() if name != "lo")
