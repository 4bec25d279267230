from __future__ import annotations

import subprocess
import sys

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._swarm import interface
from ansible_collections.sparkfleet.vllm.plugins.module_utils._swarm.interface import AddressError


def test_an_interface_is_asked_for_its_address():
    assert interface.find(interface="lo") == "127.0.0.1"


def test_an_address_of_the_host_is_taken_as_it_is():
    assert interface.find(interface="nothing-of-this-name", address="127.0.0.5") == "127.0.0.5"


@pytest.mark.parametrize(
    "asked",
    [
        {"interface": "no-such-one"},
        {"interface": "a-name-much-longer-than-a-kernel-allows"},
        {"address": "192.0.2.7"},
        {"address": "spark-1"},
        {"address": "::1"},
    ],
)
def test_what_the_host_does_not_have_is_refused_with_what_it_has(asked):
    with pytest.raises(AddressError, match=r"expected an .* of this host.*seen .*lo 127\.0\.0\.1.*correct"):
        interface.find(**asked)


def test_by_default_it_is_the_source_of_the_default_route(monkeypatch):
    monkeypatch.setattr(interface, "SOMEWHERE", "127.0.0.9")
    assert interface.find() == "127.0.0.1"


@pytest.mark.parametrize(
    ("has", "expected"),
    [
        ({"lo": "127.0.0.1", "eth0": "10.0.0.1"}, "10.0.0.1"),
        ({"lo": "127.0.0.1", "eth0": "10.0.0.1", "eth1": "10.1.0.1"}, ""),
        ({"lo": "127.0.0.1"}, ""),
    ],
)
def test_without_a_default_route_it_is_the_only_address(monkeypatch, has, expected):
    monkeypatch.setattr(interface, "_of_default_route", lambda: "")
    monkeypatch.setattr(interface, "addresses", lambda: has)
    assert interface.find() == expected


def test_a_host_without_any_route_has_no_default(tmp_path):
    code = f"import sys; sys.path[:0] = {sys.path!r}; from {interface.__name__} import _of_default_route as f; print(repr(f()))"
    answer = subprocess.run(
        ["unshare", "--user", "--net", sys.executable, "-c", code], capture_output=True, text=True
    )
    if "unshare" in answer.stderr:
        pytest.skip("needs a user namespace")
    assert answer.stdout.strip() == "''"
