# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One default of each limit of the watchdog, whoever states it: role, module, program."""

from __future__ import annotations

import dataclasses
from typing import Any

import yaml
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
