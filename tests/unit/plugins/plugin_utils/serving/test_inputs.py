# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role puts together the inputs that the code reads."""

from __future__ import annotations

import typing

import jinja2
import yaml
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.serving.inputs import Inputs
from helpers.recipe import ROOT
from jinja2 import nodes

VARIABLES = yaml.safe_load((ROOT / "roles/vllm_serve/vars/main.yml").read_text())
KINDS = typing.get_type_hints(Inputs)
NUMBERS = {int: "int", float: "float", bool: "bool"}


def given() -> dict[str, nodes.Expr]:
    """What the role gives for each input."""
    template = jinja2.Environment(autoescape=True).parse(VARIABLES["__vllm_serve_inputs"])
    mapping = next(iter(template.find_all(nodes.Dict)))
    return {pair.key.as_const(): pair.value for pair in mapping.items}


def test_the_role_gives_each_input_and_no_other() -> None:
    assert set(given()) == set(KINDS)


def test_a_number_of_an_inventory_may_be_a_text_and_is_a_number_in_the_record() -> None:
    """Otherwise ``-e vllm_serve_port=8000`` would make another record than the default does."""
    numbers = {name: NUMBERS[kind] for name, kind in KINDS.items() if kind in NUMBERS}
    assert {"port", "gpus", "acceptance_floor"} <= set(numbers)
    made = given()
    assert {name: getattr(made[name], "name", None) for name in numbers} == numbers
