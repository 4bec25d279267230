# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One default of each limit of the watchdog, whoever states it: role, module, program."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.sparkfleet.vllm.plugins.module_utils._watchdog.settings import Settings
from ansible_collections.sparkfleet.vllm.plugins.modules.watchdog import ARGUMENT_SPEC
from conftest import ROOT

ROLE = ROOT / "roles/watchdog"


def options(entry: str) -> dict[str, Any]:
    (task,) = yaml.safe_load((ROLE / f"tasks/{entry}.yml").read_text())
    given: dict[str, Any] = task["sparkfleet.vllm.watchdog"]
    return given


def test_the_role_gives_the_module_each_of_its_options() -> None:
    assert options("main") == {name: f"{{{{ watchdog_{name} }}}}" for name in ARGUMENT_SPEC}


def test_role_module_and_program_have_the_same_limits() -> None:
    said = yaml.safe_load((ROLE / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    for field in dataclasses.fields(Settings):
        assert ARGUMENT_SPEC[field.name]["default"] == field.default, field.name
        default = said[f"watchdog_{field.name}"].get("default", field.default)
        assert default == field.default, field.name


def test_absent_turns_it_off_whatever_the_mode() -> None:
    assert options("absent")["mode"] == "off"


def test_a_comparison_gets_what_the_module_gets_but_for_the_key() -> None:
    (task,) = yaml.safe_load((ROLE / "tasks/wanted.yml").read_text())
    wanted = task["ansible.builtin.set_fact"]["spark_watched"]
    assert wanted == {name: text for name, text in options("main").items() if name != "api_key"}


@pytest.mark.parametrize(
    ("given", "mode"),
    [({}, "observe"), ({"spark_watchdog": ""}, "observe"), ({"spark_watchdog": "act"}, "act")]
    + [({"spark_watchdog": off}, "off") for off in ("off", False)],
)
def test_a_bare_off_of_yaml_turns_it_off(given: dict[str, Any], mode: str) -> None:
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    templar = Templar(loader=DataLoader(), variables=given)
    assert templar.template(trust_as_template(defaults["watchdog_mode"])) == mode
