# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/public.md says what users may rely on. All that the collection has is on it or says of itself that it may change; nothing is both."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from helpers.recipe import ROOT

PAGE = (ROOT / "docs/public.md").read_text()
MAY_CHANGE = "It may change in any release."
INTERNAL = "sparkfleet.vllm.internal"


def listed(section: str) -> dict[str, str]:
    """``{name in the first column of the section's table: the second column}``"""
    (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return dict(re.findall(r"^\| `([\w.]+)` \| (.*?) \|$", text, re.MULTILINE))


def modules() -> dict[str, bool]:
    """``{module: whether its page says that it may change}``"""
    found = {}
    for path in (ROOT / "plugins/modules").glob("*.py"):
        text = path.read_text().partition('DOCUMENTATION = r"""')[2].partition('\n"""\n')[0]
        found[path.stem] = INTERNAL in (yaml.safe_load(text).get("extends_documentation_fragment") or [])
    return found


def filters() -> dict[str, bool]:
    pages = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / "plugins/filter").glob("*.yml")}
    return {name: MAY_CHANGE in str(page["DOCUMENTATION"].get("notes")) for name, page in pages.items()}


def specs(role: str) -> dict[str, Any]:
    text = (ROOT / f"roles/{role}/meta/argument_specs.yml").read_text()
    found: dict[str, Any] = yaml.safe_load(text)["argument_specs"]
    return found


def roles() -> dict[str, bool]:
    names = [path.name for path in (ROOT / "roles").iterdir() if path.is_dir()]
    return {name: MAY_CHANGE in str(specs(name)["main"]["description"]) for name in names}


def playbooks() -> dict[str, bool]:
    names = [path.name for path in (ROOT / "playbooks").glob("*.yml") if ".meta" not in path.name]
    return {name: MAY_CHANGE in (ROOT / "playbooks" / name).read_text() for name in names}


@pytest.mark.parametrize(
    ("section", "there"),
    [("Playbooks", playbooks()), ("Roles", roles()), ("Modules", modules()), ("Filters", filters())],
)
def test_each_thing_is_on_the_page_or_may_change_and_none_is_both(
    section: str, there: dict[str, bool]
) -> None:
    public = listed(section)
    assert public, f"no table in {section}"
    assert set(public) - set(there) == set(), "on the page and not in the collection"
    neither = {name for name, marked in there.items() if not marked and name not in public}
    assert neither == set(), (
        "put it on docs/public.md, or say that it may change (plugins/doc_fragments/internal.py)"
    )
    assert {name for name in public if there[name]} == set(), "on the page, and says that it may change"


def test_what_says_that_it_may_change_says_so_on_its_page() -> None:
    assert MAY_CHANGE in (ROOT / "plugins/doc_fragments/internal.py").read_text()


def test_the_entry_points_of_the_page_are_there() -> None:
    for role, entries in listed("Roles").items():
        assert set(re.findall(r"`(\w+)`", entries)) <= set(specs(role)), role


def test_the_variables_of_the_fleet_are_those_that_the_playbooks_check() -> None:
    fleet = yaml.safe_load((ROOT / "playbooks/fleet.meta.yml").read_text())["argument_specs"]["fleet"]
    assert set(listed("Variables of the fleet")) == set(fleet["options"])


def test_the_environment_is_what_roles_read_of_it() -> None:
    read = {
        name
        for path in (ROOT / "roles").rglob("*.yml")
        for name in re.findall(r"lookup\('ansible\.builtin\.env', '(\w+)'\)", path.read_text())
    }
    assert set(listed("Environment of the controller")) == read
