"""How the role gateway puts its inputs together, and its unit, by Ansible's own templating."""

from __future__ import annotations

import base64
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.gateway import plan
from helpers.gateway import KEY, server
from helpers.playbook import run_playbook
from helpers.recipe import ROOT

ROLE = ROOT / "roles/gateway"


def trusted(value: Any) -> Any:
    if isinstance(value, str):
        return trust_as_template(value)
    if isinstance(value, dict):
        return {key: trusted(item) for key, item in value.items()}
    return [trusted(item) for item in value] if isinstance(value, list) else value


def known(**given: Any) -> dict[str, Any]:
    """The role's variables on a gateway of one Spark, which has passed."""
    found = trusted(yaml.safe_load((ROLE / "defaults/main.yml").read_text()))
    found |= trusted(yaml.safe_load((ROLE / "vars/main.yml").read_text()))
    found["__gateway_inputs"] |= {
        "servers": [server("spark-1")],
        "gateways": {"gate-1": "192.0.2.251"},
        "monitoring": {},
    }
    # Its default asks the environment of the controller.
    found["gateway_server_key"] = ""
    return found | {"ansible_managed": "managed", "inventory_hostname": "gate-1", "groups": {}} | given


def value(name: str, **given: Any) -> Any:
    return value_of("{{ " + name + " }}", **given)


def value_of(text: str, **given: Any) -> Any:
    return Templar(loader=DataLoader(), variables=known(**given)).template(trust_as_template(text))


CERTIFIED = {"gateway_certificate": "CERT", "gateway_certificate_key": "PRIVATE"}
KEYS = [{"name": "anna", "key": KEY}]


def test_a_gateway_needs_a_certificate_and_keys_and_nothing_else() -> None:
    made = plan.plan(value("__gateway_inputs", gateway_keys=KEYS, **CERTIFIED))
    assert (made.binds, made.tls, made.server_key) == (("0.0.0.0:443",), True, False)
    with pytest.raises(plan.GatewayError, match="do: give gateway_certificate"):
        plan.plan(value("__gateway_inputs", gateway_keys=KEYS))
    with pytest.raises(plan.GatewayError, match="at least one key"):
        plan.plan(value("__gateway_inputs", **CERTIFIED))


def test_the_key_of_the_sparks_is_a_secret_file() -> None:
    given = {"gateway_server_key": "the-key-of-the-sparks"}
    assert value("__gateway_inputs", **given)["server_key"] is True
    assert value("__gateway_secrets", **given)["server.key"] == "servers the-key-of-the-sparks\n"


@pytest.mark.parametrize(
    ("given", "pem"),
    [
        (CERTIFIED, "CERT\nPRIVATE\n"),
        ({}, ""),
        (
            {
                "gateway_lab_certificate": True,
                "__gateway_lab_files": {"results": [{"content": "Q0VSVAo="}, {"content": "S0VZCg=="}]},
            },
            "CERT\nKEY\n",
        ),
    ],
)
def test_the_certificate_lies_before_its_key(given: dict[str, Any], pem: str) -> None:
    assert value("__gateway_secrets", **given) == {"tls.pem": pem, "server.key": ""}


PLAY = """
- hosts: gate-1
  gather_facts: false
  vars_files: [{role}/defaults/main.yml, {role}/vars/main.yml]
  tasks:
    - ansible.builtin.set_fact:
        plan: "{{{{ __gateway_inputs | sparkfleet.vllm.gateway_plan }}}}"
      vars: {given}
    - ansible.builtin.copy: {{content: "{{{{ plan | to_json }}}}", dest: {folder}/plan.json}}
"""


def test_ansible_computes_the_plan_of_servers_that_it_has_before(tmp_path: Path) -> None:
    """Of values as a filter gets them in a play, from the list that the gateway has."""
    former = base64.b64encode(json.dumps([server("spark-1")]).encode()).decode()
    given = CERTIFIED | {
        "gateway_keys": KEYS,
        "gateway_sparks": ["spark-1"],
        "gateway_server_key": "",
        "__gateway_former": {"content": former},
    }
    (tmp_path / "play.yml").write_text(PLAY.format(role=ROLE, given=json.dumps(given), folder=tmp_path))
    hosts = {"gate-1": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}}
    lost = {"spark-1": {"__gateway_record": None, "ansible_host": "192.0.2.1"}}
    inventory = {"gateways": {"hosts": hosts}, "sparks": {"hosts": lost}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(inventory))
    done = run_playbook("-i", tmp_path / "hosts.yml", tmp_path / "play.yml", cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    made = json.loads((tmp_path / "plan.json").read_text())
    assert made["servers"] == [server("spark-1")]
    assert [each["name"] for each in made["pools"][0]["servers"]] == ["spark-1"]


def test_the_unit_keeps_the_states_before_it_reloads_and_before_it_stops() -> None:
    text = (ROLE / "templates/sparkfleet-gateway.service.j2").read_text()
    unit = Templar(loader=DataLoader(), variables=known()).template(trust_as_template(text)).splitlines()
    reloads = [line.partition("=")[2] for line in unit if line.startswith("ExecReload=")]
    assert [line.split()[0] for line in reloads] == ["/usr/sbin/haproxy", "-/bin/sh", "/bin/kill"]
    (stops,) = [line.partition("=")[2] for line in unit if line.startswith("ExecStop=")]
    assert stops == reloads[1]
    assert stops.count("'") == 2
    assert "UNIX-CONNECT:/run/sparkfleet-gateway/master.sock" in stops
    assert stops.endswith("mv /var/lib/sparkfleet-gateway/servers.new /var/lib/sparkfleet-gateway/servers'")


def test_drift_compares_all_files_that_the_role_writes_elsewhere() -> None:
    """Each with what its own template makes."""
    tasks = [
        task.get("ansible.builtin.template")
        for name in ("main", "address")
        for task in yaml.safe_load((ROLE / f"tasks/{name}.yml").read_text())
    ]
    written = {value_of(each["dest"]): each["src"] for each in tasks if each}
    composed = yaml.safe_load((ROLE / "vars/main.yml").read_text())
    paths = re.search(r"dict\(\[(.*)\] \|", composed["__gateway_sharing"])
    assert paths
    sharing = dict(zip(paths[1].split(", "), composed["__gateway_sharing_texts"], strict=True))
    compared = composed["__gateway_always"] | {value(name): text for name, text in sharing.items()}
    assert {path: text.split("'")[3] for path, text in compared.items()} == written


@pytest.mark.parametrize(
    ("given", "bind"),
    [
        ({}, "127.0.0.1"),
        ({"groups": {"gateways": ["gate-1"]}, "ansible_host": "192.0.2.7", "spark_address": ""}, "192.0.2.7"),
        (
            {
                "groups": {"gateways": ["gate-1"]},
                "ansible_host": "192.0.2.7",
                "spark_address": "198.51.100.7",
            },
            "198.51.100.7",
        ),
    ],
)
def test_a_spark_behind_gateways_is_met_at_its_address_and_another_one_by_nobody(
    given: dict[str, Any], bind: str
) -> None:
    defaults = trusted(yaml.safe_load((ROOT / "roles/vllm_serve/defaults/main.yml").read_text()))
    known_here = defaults | {"groups": {}, "inventory_hostname": "spark-1"} | given
    found = Templar(loader=DataLoader(), variables=known_here).template(
        trust_as_template("{{ vllm_serve_bind }}")
    )
    assert found == bind
