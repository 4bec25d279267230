"""The packages of a host: all with hashes, and those of the role among them."""

from __future__ import annotations

import re

import yaml
from ansible_collections.sparkfleet.vllm.plugins.module_utils._common import packages, pinned
from helpers.recipe import ROOT

DEFAULTS = yaml.safe_load((ROOT / "roles/prerequisites/defaults/main.yml").read_text())


def test_each_has_hashes_and_a_version_for_each_python() -> None:
    known = pinned.names(packages.HASHES)
    assert len(known) > len(packages.REQUIREMENTS)
    for name in known:
        lines = [line for line in packages.HASHES if line.startswith(f"{name}==")]
        markers = [re.findall(r" ; (\S+ [<>=]+ '3\.11')", line) for line in lines]
        assert len(lines) == 1 or sorted(markers) == [
            ["python_full_version < '3.11'"],
            ["python_full_version >= '3.11'"],
        ], name


def test_they_are_those_of_the_role_at_its_versions() -> None:
    assert list(packages.REQUIREMENTS) == DEFAULTS["prerequisites_python_requirements"]
    for requirement in packages.REQUIREMENTS:
        name, version = requirement.split("==")
        assert any(
            line.startswith(f"{pinned.canonical(name)}=={version} --hash=") for line in packages.HASHES
        )


def test_they_are_for_just_these() -> None:
    assert packages.hashes(reversed(packages.REQUIREMENTS)) == list(packages.HASHES)
    assert (
        packages.hashes([*packages.REQUIREMENTS, "more"]) == packages.hashes(packages.REQUIREMENTS[1:]) == []
    )
