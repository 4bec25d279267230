"""When a host counts as settled: the module's records, and the controller's digest of what is asked for."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.sparkfleet.vllm.plugins.action import host_unchanged as action
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host import engine_socket
from ansible_collections.sparkfleet.vllm.plugins.modules import host_unchanged
from helpers.playbook import run_playbook
from helpers.recipe import ROOT

SERVING = {"recipe": "r", "container": {"name": "c", "image": "i"}, "models": {}, "files": []}


class Host:
    """What a run does with the module. `seen` is what there is to see."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.seen = folder, {"container": "1", "models": "1"}
        (folder / "state.json").write_text(
            json.dumps({"version": 1, "current": {"serving": SERVING, "gate": {}}})
        )
        monkeypatch.setattr(host_unchanged.unchanged, "of_host", lambda *_: dict(self.seen))

    def look(self, inputs="asked", trust=True):
        return host_unchanged.look(self.params(inputs=inputs, trust=trust))

    def record(self, before, inputs="asked", write=True, **watch):
        return host_unchanged.record(self.params(inputs=inputs, before=before, **watch), write=write)

    def run(self, inputs="asked", while_it_looks=lambda: None):
        """A whole run; whether it was spared the full look."""
        looked = self.look(inputs)
        if looked["settled"]:
            return True
        while_it_looks()
        self.record(looked["seen"], looked["inputs"])
        return False

    def params(self, **options):
        watch = {"environment": "/venv", "files": [], "urls": []}
        return {
            "state_dir": str(self.folder),
            "socket": "/none",
            "before": {},
            "trust": True,
            **watch,
            **options,
        }


@pytest.fixture
def host(tmp_path, monkeypatch):
    return Host(tmp_path, monkeypatch)


def test_the_first_run_deploys_the_second_looks_and_the_third_is_spared(host):
    assert [host.run(), host.run(), host.run(), host.run()] == [False, False, True, True]
    assert host.look()["serving"] == SERVING
    assert (host.folder / "settled.json").stat().st_mode & 0o777 == 0o600


def test_what_changes_between_runs_is_looked_at_and_then_proved(host):
    host.run(), host.run()
    host.seen["models"] = "2"
    looked = host.look()
    assert (looked["settled"], looked["because"]) == (False, ["models"])
    assert "serving" not in looked
    assert [host.run(), host.run()] == [False, True]


def test_what_changes_while_a_run_looks_is_looked_at_again(host):
    host.run(), host.run()
    host.seen["models"] = "2"
    assert not host.run(while_it_looks=lambda: host.seen.update(models="3"))
    assert not host.look()["settled"]
    assert [host.run(), host.run()] == [False, True]


def test_another_input_calls_for_a_full_look(host):
    host.run(), host.run()
    looked = host.look("other")
    assert (looked["settled"], looked["because"]) == (False, ["what is asked for"])
    assert [host.run("other"), host.run("other")] == [False, True]


@pytest.mark.parametrize("inputs", ["", "asked"])
def test_inputs_that_cannot_be_told_settle_nothing(host, inputs):
    host.run(inputs), host.run(inputs)
    assert host.look(inputs)["settled"] is bool(inputs)


def test_a_run_at_work_is_not_passed_by(host):
    host.run(), host.run()
    (host.folder / "run.json").write_text("")
    looked = host.look()
    assert (looked["settled"], looked["because"]) == (False, ["a run that holds the host"])
    (host.folder / "run.json").unlink()
    assert host.look()["settled"]


def test_asked_to_look_again_it_looks_and_still_knows(host):
    host.run(), host.run()
    looked = host.look(trust=False)
    assert (looked["settled"], looked["seen"]) == (False, host.seen)
    assert host.record(looked["seen"])["settled"]


def test_another_watch_is_proved_only_by_another_run(host, monkeypatch):
    monkeypatch.setattr(
        host_unchanged.unchanged, "of_host", lambda _, serving, watch, ask: {"watch": str(watch)}
    )
    host.run(), host.run()
    assert host.look()["settled"]
    host.record(host.look()["seen"], files=["/etc/more"])
    assert not host.look()["settled"]


def test_a_full_disk_does_not_fail_a_host_that_has_passed(host, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    warned: list[str] = []
    monkeypatch.setattr(host_unchanged.files, "write", full)
    monkeypatch.setattr(host_unchanged.AnsibleModule, "warn", lambda _, text: warned.append(text))
    asked = {"state": "recorded", "state_dir": str(host.folder)}
    with patch_module_args(asked), pytest.raises(SystemExit) as left:
        host_unchanged.main()
    result = json.loads(capsys.readouterr().out)
    assert left.value.code == 0 and result["settled"] is False
    assert "expected to write settled.json in" in warned[0]


def test_check_mode_records_nothing(host):
    host.record({}, write=False)
    assert not (host.folder / "settled.json").exists()


WATCH = {"environment": "/e", "files": [], "urls": []}


def settled(**over):
    whole = {"version": 1, "inputs": "asked", "watch": WATCH, "seen": {}, "proved": True}
    return json.dumps({name: value for name, value in {**whole, **over}.items() if value is not None})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"version": 0}',
        "{",
        "[" * 100_000,
        *[settled(**{name: None}) for name in ("inputs", "watch", "seen", "proved")],
        settled(watch=[]),
        settled(watch={"files": []}),
        settled(watch={**WATCH, "files": 5}),
        settled(watch={**WATCH, "environment": 5}),
        settled(seen=5),
    ],
)
def test_records_that_cannot_be_read_are_none(host, text):
    host.run(), host.run()
    (host.folder / "settled.json").write_text(text)
    assert host.look() == {"settled": False, "because": [], "seen": {}, "inputs": "asked"}
    assert [host.run(), host.run(), host.run()] == [False, False, True]


@pytest.mark.parametrize("text", [None, "{", '{"version": 1, "current": null}', '{"version": 9}'])
def test_a_host_where_nothing_is_on_record_is_not_settled(host, text):
    host.run(), host.run()
    (host.folder / "state.json").unlink() if text is None else (host.folder / "state.json").write_text(text)
    assert not host.look()["settled"]


@pytest.mark.parametrize("error", [engine_socket.EngineError("no answer"), OSError()])
def test_what_cannot_be_seen_is_not_settled(host, monkeypatch, error):
    host.run(), host.run()

    def fail(*_):
        raise error

    monkeypatch.setattr(host_unchanged.unchanged, "of_host", fail)
    assert not host.look()["settled"]
    assert not host.record(host.seen)["settled"]
    assert not host.look()["settled"]


@pytest.mark.parametrize("error", [KeyError("Id"), TypeError("no list")])
def test_a_fault_of_the_look_is_not_taken_for_a_host_that_cannot_be_seen(host, monkeypatch, error):
    host.run(), host.run()

    def fail(*_):
        raise error

    monkeypatch.setattr(host_unchanged.unchanged, "of_host", fail)
    with pytest.raises(type(error)):
        host.look()
    with pytest.raises(type(error)):
        host.record(host.seen)


def test_the_code_is_told_by_its_bytes_and_not_by_what_python_makes_of_it(tmp_path):
    module = tmp_path / "plugins/modules/x.py"
    module.parent.mkdir(parents=True)
    module.write_text("1")
    before = action.code(tmp_path)
    (module.parent / "__pycache__").mkdir()
    (module.parent / "__pycache__/x.pyc").write_text("")
    os.utime(module, ns=(1, 1))
    assert action.code(tmp_path) == before, "a controller unpacks the same code anew for each job"
    module.write_text("2")
    assert action.code(tmp_path) != before
    assert action.code(ROOT)


def play(folder: Path, tasks: str, gateways=None, **variables) -> str:
    """What a run of these tasks prints."""
    (folder / "play.yml").write_text(f"- hosts: one\n  gather_facts: false\n  tasks:\n{tasks}")
    hosts = {"all": {"hosts": {"one": {"ansible_connection": "local", **variables}}}}
    hosts |= {"gateways": {"hosts": gateways}} if gateways else {}
    (folder / "hosts.yml").write_text(yaml.safe_dump(hosts))
    done = run_playbook(
        "-i",
        folder / "hosts.yml",
        folder / "play.yml",
        cwd=ROOT,
        ANSIBLE_PYTHON_INTERPRETER=sys.executable,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def inputs(folder: Path, gateways=None, **variables) -> str:
    """What the action makes of the variables of a host, in a real run."""
    tasks = """
    - sparkfleet.vllm.host_unchanged: {state_dir: /nowhere}
      register: seen
    - debug: {msg: "INPUTS<{{ seen.inputs }}>"}
"""
    return play(folder, tasks, gateways, **variables).partition("INPUTS<")[2].partition(">")[0]


@pytest.mark.parametrize(
    ("variables", "trusted"),
    [
        ({}, True),
        ({"spark_look_again": True}, False),
        ({"spark_look_again": "yes"}, False),
        ({"spark_bundle": "/media/bundle"}, False),
        ({"model_sync_verify": "full"}, False),
        ({"spark_look_again": False, "spark_bundle": "", "model_sync_verify": "stat"}, True),
    ],
)
def test_a_run_that_is_to_look_closer_trusts_no_record(variables, trusted):
    """As site.yml says it."""
    tasks = yaml.safe_load((ROOT / "playbooks/site.yml").read_text())[0]["tasks"]
    written = next(
        task["vars"]["unchanged_trust"] for task in tasks if "unchanged_trust" in task.get("vars", {})
    )
    assert Templar(loader=DataLoader(), variables=variables).template(trust_as_template(written)) is trusted


def test_inputs_are_the_values_that_variables_have(tmp_path):
    first = inputs(tmp_path, spark_recipe="{{ mine }}", mine="a", other="x")
    assert len(first) == 64
    assert inputs(tmp_path, spark_recipe="{{ mine }}", mine="a", other="y") == first
    assert inputs(tmp_path, spark_recipe="{{ mine }}", mine="b", other="x") != first
    assert inputs(tmp_path, spark_recipe="a", vllm_serve_api_key="k", other="x") != first
    assert (
        inputs(tmp_path, spark_recipe="a", other="x", spark_look_again=True, unchanged_trust=False) == first
    ), "a manner of looking"
    assert inputs(tmp_path, spark_recipe="{{ nowhere }}") == ""


def test_another_gateway_or_another_address_of_one_is_another_input(tmp_path):
    """What a host lets in depends on it, though no variable of the host says so."""
    gateways = {"gate-1": {"ansible_host": "{{ at }}", "at": "192.0.2.1"}}
    first = inputs(tmp_path, gateways)
    assert inputs(tmp_path, {"gate-1": {"ansible_host": "192.0.2.1"}}) == first
    assert inputs(tmp_path, {"gate-1": {"ansible_host": "192.0.2.2"}}) != first
    assert inputs(tmp_path, {**gateways, "192.0.2.3": {}}) != first
    assert len({first, inputs(tmp_path), ""}) == 3
    assert inputs(tmp_path, {"gate-1": {"ansible_host": "{{ nowhere }}"}}) == ""


def test_a_look_that_fails_is_said_and_the_run_goes_on(tmp_path):
    """The role, over a record that no version of the collection has written."""
    (tmp_path / "state.json").write_text(
        json.dumps(
            {"version": 1, "current": {"serving": SERVING | {"container": {"image": "i"}}, "gate": {}}}
        )
    )
    (tmp_path / "settled.json").write_text(
        json.dumps(
            {"version": host_unchanged.VERSION, "watch": WATCH, "seen": {}, "inputs": "", "proved": True}
        )
    )
    tasks = """
    - import_role: {name: sparkfleet.vllm.unchanged}
    - debug: {msg: "SETTLED<{{ spark_settled.settled | default('unknown') }}>"}
"""
    said = play(tmp_path, tasks, unchanged_state_dir=str(tmp_path))
    assert re.search(r"one: to be looked at in full, because this look failed: .*KeyError.*name", said)
    assert "SETTLED<unknown>" in said
