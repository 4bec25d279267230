"""inventory/spark is what users copy: it must load, and name nothing that no role reads."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers.recipe import ROOT

EXAMPLE = ROOT / "inventory" / "spark"
VARS = {group: EXAMPLE / "group_vars" / group / "vars.yml" for group in ("sparks", "gateways")}


def defaults() -> dict[str, object]:
    values: dict[str, object] = {}
    for path in (ROOT / "roles").glob("*/defaults/main.yml"):
        values |= yaml.safe_load(path.read_text())
    return values


def fleet() -> dict[str, object]:
    """What playbooks take, by name, with its default; a default that is none has none."""
    stated: dict[str, object] = {}
    for path in (ROOT / "playbooks").glob("*.meta.yml"):
        for entry in yaml.safe_load(path.read_text())["argument_specs"].values():
            stated |= {name: option.get("default") for name, option in entry["options"].items()}
    return stated


def test_the_example_loads_with_two_sparks():
    program = Path(sys.executable).with_name("ansible-inventory")
    done = subprocess.run(
        [program, "-i", EXAMPLE, "--list"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert len(json.loads(done.stdout)["sparks"]["hosts"]) == 2


@pytest.mark.parametrize(("group", "least"), [("sparks", 16), ("gateways", 9)])
def test_every_variable_of_the_example_is_read_by_something(group, least):
    names = set(re.findall(r"^(?:# )?([a-z0-9_]+):(?: |$)", VARS[group].read_text(), re.M))
    assert len(names) >= least
    assert {name for name in names if not name.startswith("ansible_")} <= set(defaults()) | set(fleet())


@pytest.mark.parametrize(("group", "least"), [("sparks", 11), ("gateways", 5)])
def test_a_commented_default_is_the_default(group, least):
    known = defaults() | fleet()
    held = 0
    for line in re.findall(r"^# ([a-z0-9_]+: .*)$", VARS[group].read_text(), re.M):
        ((name, value),) = yaml.safe_load(line).items()
        if "{{" in str(value) or "default: the recipe's" in line:
            continue
        assert known[name] == value, name
        held += 1
    assert held >= least
