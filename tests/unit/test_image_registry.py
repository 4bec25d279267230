"""What the role image_registry writes, and which host and address it takes, by Ansible's own templating."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils import _registry_address

ROLE = Path(__file__).resolve().parents[2] / "roles" / "image_registry"


def trusted(value):
    if isinstance(value, str):
        return trust_as_template(value)
    return {key: trusted(item) for key, item in value.items()} if isinstance(value, dict) else value


def variables(sparks=("a", "b"), hostvars=None, **given):
    known = trusted(yaml.safe_load((ROLE / "defaults/main.yml").read_text()))
    known |= trusted(yaml.safe_load((ROLE / "vars/main.yml").read_text()))
    hosts = {name: {"ansible_host": f"192.0.2.{number}"} for number, name in enumerate(sparks, 1)}
    for name, more in (hostvars or {}).items():
        hosts[name] |= more
    return (
        known | {"groups": {"sparks": list(sparks)}, "hostvars": hosts, "ansible_managed": "managed"} | given
    )


def value(name, known):
    return Templar(loader=DataLoader(), variables=known).template(trust_as_template("{{ " + name + " }}"))


def rendered(template, known):
    text = (ROLE / "templates" / template).read_text()
    return Templar(loader=DataLoader(), variables=known).template(trust_as_template(text))


@pytest.mark.parametrize(
    ("sparks", "given", "host"),
    [
        (["a", "b"], {}, "a"),
        (["a"], {}, ""),
        ([], {}, ""),
        (["a", "b"], {"spark_registry_mirrors": ["http://m"]}, ""),
        (["a", "b"], {"spark_registry_mirrors": ["http://m"], "spark_registry_host": "b"}, "b"),
        (["a", "b"], {"spark_registry_host": ""}, ""),
        (["a"], {"spark_registry_host": "a"}, "a"),
    ],
)
def test_which_host_serves(sparks, given, host):
    assert value("image_registry_host", variables(sparks, **given)) == host


FACTS = {"ansible_enp1s0f0np0": {"ipv4": {"address": "198.51.100.1"}}}


def advertised(known, facts=None):
    """The address that the role hands on, from what it asks its action for."""
    task = yaml.safe_load((ROLE / "tasks/advertise.yml").read_text())[0]
    templar = Templar(loader=DataLoader(), variables=known)
    asked = templar.template(trusted(task["sparkfleet.vllm.registry_address"]))
    met_at = known["hostvars"].get(asked["host"], {}).get("ansible_host", asked["host"])
    return _registry_address.url(**asked, facts=facts or {}, met_at=met_at)


@pytest.mark.parametrize(
    ("more", "given", "facts", "url"),
    [
        ({}, {}, {}, "http://192.0.2.1:5000"),
        ({"spark_address": "198.51.100.7"}, {}, {}, "http://198.51.100.7:5000"),
        ({"spark_address": "2001:db8::7"}, {"image_registry_port": 5001}, {}, "http://[2001:db8::7]:5001"),
        ({"spark_interface": "enp1s0f0np0"}, {}, FACTS, "http://198.51.100.1:5000"),
        # An interface that is not there leads nowhere, rather than to another network. So does a host that does not answer.
        ({"spark_interface": "enp1s0f0np0"}, {}, {}, ""),
    ],
)
def test_where_it_listens(more, given, facts, url):
    assert advertised(variables(hostvars={"a": more}, **given), facts) == url


def test_a_host_without_an_address_is_met_under_its_name():
    known = variables()
    known["hostvars"]["a"] = {}
    assert advertised(known) == "http://a:5000"


def test_a_fleet_of_one_has_none():
    assert advertised(variables(["a"])) == ""


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("http://192.0.2.1:5000", "192.0.2.1:5000"),
        ("http://[2001:db8::7]:5001", "[2001:db8::7]:5001"),
        ("", ""),
    ],
)
def test_it_listens_where_the_fleet_was_told(url, authority):
    assert value("__image_registry_authority", variables(spark_registry=url)) == authority


def test_the_registry_only_reads_and_knows_no_upstream():
    given = {"image_registry_username": "me", "image_registry_password": "secret", "spark_store": "/srv/a b"}
    given |= {"spark_registry": "http://192.0.2.1:5000"}
    text = rendered("registry.yml.j2", variables(**given))
    config = yaml.safe_load(text)
    assert config["storage"]["filesystem"] == {"rootdirectory": "/srv/a b/registry"}
    assert config["storage"]["maintenance"]["readonly"] == {"enabled": True}
    assert config["http"]["addr"] == "192.0.2.1:5000"
    assert "proxy" not in config
    assert "secret" not in text


def test_the_unit_serves_that_configuration_without_rights():
    unit = rendered("sparkfleet-registry.service.j2", variables())
    assert "ExecStart=/usr/bin/docker-registry serve /etc/sparkfleet-registry.yml\n" in unit
    for line in ("DynamicUser=yes", "ProtectSystem=strict", "CapabilityBoundingSet=", "NoNewPrivileges=yes"):
        assert f"\n{line}\n" in unit


BUILT = {"recipe": {"image": {"build": {"commit": "1"}}}}


@pytest.mark.parametrize(
    ("given", "sources", "user"),
    [
        ({}, ["https://registry-1.docker.io"], "me"),
        ({"spark_registry_mirrors": ["http://m"]}, ["http://m", "https://registry-1.docker.io"], "me"),
        # The name of an image that is built may be a stranger's on Docker Hub.
        (BUILT, [], ""),
        (BUILT | {"spark_registry_mirrors": ["http://m"]}, ["http://m"], ""),
        (BUILT | {"image_registry_remote": "/mnt/bundle/registry"}, ["/mnt/bundle/registry"], "me"),
    ],
)
def test_who_is_asked_for_the_image_and_who_gets_the_password(given, sources, user):
    known = variables(**{"image_registry_username": "me", "omit": ""} | given)
    (task,) = yaml.safe_load((ROLE / "tasks/fetch.yml").read_text())
    arguments = task["sparkfleet.vllm.image_fetch"]
    templar = Templar(loader=DataLoader(), variables=known)
    assert templar.template(trust_as_template(arguments["sources"])) == sources
    assert templar.template(trust_as_template(arguments["username"])) == user
