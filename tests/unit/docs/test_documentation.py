"""Documentation that can be wrong is held against the code: module docs, role argument specs, role defaults."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils import basic
from conftest import COLLECTIONS

ROOT = Path(__file__).resolve().parents[3]
MODULES = sorted(path.stem for path in (ROOT / "plugins" / "modules").glob("*.py"))
ROLES = sorted(path.parent.parent for path in (ROOT / "roles").glob("*/meta/argument_specs.yml"))
ATTRIBUTES = {"check_mode", "diff_mode", "idempotent"}


class Captured(Exception):
    pass


@cache
def pages() -> dict[str, dict[str, Any]]:
    """The modules' pages as ansible-doc has them, with what they take from fragments."""
    command = [str(Path(sys.executable).with_name("ansible-doc")), "--json"]
    command += [f"sparkfleet.vllm.{name}" for name in MODULES]
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS)}
    run = subprocess.run(command, capture_output=True, check=True, env=environment)
    return {name.rpartition(".")[2]: page for name, page in json.loads(run.stdout).items()}


def argument_spec(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any] | None:
    """What the module's main() hands to AnsibleModule; None for a module that is only the page of an action."""
    module = importlib.import_module(f"ansible_collections.sparkfleet.vllm.plugins.modules.{name}")
    if not hasattr(module, "main"):
        return None
    seen: dict[str, Any] = {}

    def capture(self: Any, argument_spec: dict[str, Any], **kwargs: Any) -> None:
        seen.update(argument_spec)
        raise Captured

    monkeypatch.setattr(basic.AnsibleModule, "__init__", capture)
    with pytest.raises(Captured):
        module.main()
    return seen


def documented(options: dict[str, Any]) -> dict[str, Any]:
    return {
        name: {
            "type": option.get("type", "str"),
            "required": option.get("required", False),
            "default": option.get("default"),
            "choices": option.get("choices"),
            "elements": option.get("elements"),
            "options": documented(option["suboptions"]) if option.get("suboptions") else None,
        }
        for name, option in options.items()
    }


def implemented(spec: dict[str, Any]) -> dict[str, Any]:
    return {
        name: {
            "type": option.get("type", "str"),
            "required": option.get("required", False),
            "default": option.get("default"),
            "choices": list(option["choices"]) if option.get("choices") else None,
            "elements": option.get("elements"),
            "options": implemented(option["options"]) if option.get("options") else None,
        }
        for name, option in spec.items()
    }


@pytest.mark.parametrize("name", MODULES)
def test_a_modules_page_says_what_its_argument_spec_says(name, monkeypatch):
    page = pages()[name]
    assert page["doc"]["module"] == name
    assert set(page["doc"]["attributes"]) >= ATTRIBUTES
    assert yaml.safe_load(page["examples"]) and page["return"]
    spec = argument_spec(name, monkeypatch)
    if spec is not None:
        assert documented(page["doc"].get("options") or {}) == implemented(spec)


@pytest.mark.parametrize("name", MODULES)
def test_every_return_value_has_a_type_and_says_when(name):
    for key, value in pages()[name]["return"].items():
        assert {"type", "returned", "description"} <= set(value), key


@pytest.mark.parametrize(
    "name", ["hf_snapshot", "hf_snapshot_info", "image_build", "image_fetch", "image_pull"]
)
def test_a_front_is_that_of_its_module_and_knows_its_time_limit(name):
    front = importlib.import_module(f"ansible_collections.sparkfleet.vllm.plugins.action.{name}").ActionModule
    limit = pages()[name]["doc"]["options"]["timeout"]["default"]
    assert (f"sparkfleet.vllm.{name}", limit) == (front.MODULE, front.TIMEOUT)


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_a_roles_argument_specs_and_defaults_agree(role):
    options = yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]["main"][
        "options"
    ]
    defaults = yaml.safe_load((role / "defaults/main.yml").read_text())
    assert set(options) == set(defaults) | {
        name for name, option in options.items() if option.get("required")
    }
    for name, value in defaults.items():
        assert name.startswith(f"{role.name}_")
        templated = isinstance(value, str) and "{{" in value
        assert templated or options[name].get("default") == value, name
        assert not (templated and "default" in options[name]), (
            f"{name}: the default is computed; describe it instead"
        )


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_entry_point_of_a_role_is_a_task_file(role):
    for entry in yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]:
        assert (role / "tasks" / f"{entry}.yml").is_file()


def test_every_role_has_argument_specs():
    assert {role.name for role in ROLES} == {
        path.name for path in (ROOT / "roles").iterdir() if path.is_dir()
    }


def test_the_action_group_names_every_module():
    runtime = yaml.safe_load((ROOT / "meta/runtime.yml").read_text())
    assert runtime["action_groups"]["vllm"] == MODULES
