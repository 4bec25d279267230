# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""C(recipe_load), on the controller alone: no connection is opened, so a wrong recipe stops before any host."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.sparkfleet.vllm.plugins.module_utils import _lock, _recipe, _schema
from ansible_collections.sparkfleet.vllm.plugins.module_utils._schema import Problem

SHIPPED = Path(__file__).resolve().parents[2] / "recipes"
ENDINGS = (".yml", ".yaml")


def shown(path: Path) -> str:
    """A path as short as it can be told from here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def places(inventory: Path | None) -> list[Path]:
    """Where recipes lie that have a name: what is shipped, and beside the inventory."""
    # Beside the hosts file, and beside the directory of one: what lies in a directory is read as inventory.
    return [SHIPPED, *([inventory / "recipes", inventory.parent / "recipes"] if inventory else [])]


def named(name: str, inventory: Path | None) -> list[Path]:
    """Every file of a recipe of that name."""
    return [
        path
        for place in places(inventory)
        for ending in ENDINGS
        if (path := place / f"{name}{ending}").is_file()
    ]


def by_name(name: str, inventory: Path | None) -> Path:
    """The file of the recipe of that name, among the shipped ones and beside the inventory.

    :raises LookupError: there is none, or more than one
    """
    found = named(name, inventory)
    if len(found) > 1:
        raise LookupError(
            f"expected one, seen {' and '.join(map(shown, found))}; rename yours, or give its path"
        )
    if found:
        return found[0]
    names = sorted(
        path.stem
        for place in places(inventory)
        for path in place.glob("*.y*ml")
        if path.suffix in ENDINGS and not path.stem.endswith(".lock")
    )
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    raise LookupError(
        f"expected one of {', '.join(names) or 'none'} in {' or '.join(map(shown, places(inventory)))}, seen '{name}'"
        + (f"; nearest: {close[0]}" if close else "")
    )


def find(asked: str, inventory: Path | None, bases: list[Path]) -> Path:
    """The file of a recipe: by name among the shipped ones and beside the inventory, or by path.

    :raises AnsibleActionFail: no such recipe, or two of that name
    """
    if "/" in asked or asked.endswith(ENDINGS):
        tried = [(base / Path(asked).expanduser()) for base in bases]
        for path in tried:
            if path.is_file():
                return Path(os.path.normpath(path))
        raise AnsibleActionFail(
            f"recipe '{asked}': expected a file, seen none at {' or '.join(dict.fromkeys(map(shown, tried)))};"
            " correct spark_recipe"
        )
    try:
        return by_name(asked, inventory)
    except LookupError as error:
        raise AnsibleActionFail(
            f"recipe '{asked}': {error}; correct spark_recipe, which may also be the path of a file"
        ) from error


def load(path: Path, inventory: Path | None) -> dict[str, Any]:
    """The whole recipe of a file, with what it extends. Options that are unknown here are warned of.

    :raises AnsibleActionFail: with every problem of it
    """

    def base(name: str) -> tuple[str, str]:
        extended = by_name(name, inventory)
        return read(extended), shown(extended)

    recipe, problems = _recipe.parse(
        read(path), shown(path), base, warn=lambda unknown: Display().warning(str(unknown))
    )
    if problems:
        raise failure(f"recipe '{path.stem}' is not valid", problems)
    return recipe


def whole_text(path: Path, inventory: Path | None) -> str:
    """The file of a recipe as it is, or, where it extends another, as one that is complete in itself.

    :raises AnsibleActionFail: the recipe is not valid
    """
    text, recipe = read(path), load(path, inventory)
    if "extends" not in _schema.load(text, shown(path)).data:
        return text
    return f"---\n# Made of {path.name} and all that it extends.\n{_schema.dump(recipe)}"


def home(variables: Mapping[str, Any]) -> Path | None:
    """The directory of the inventory. Without an inventory file Ansible gives none, as None or as its text."""
    inventory = str(variables.get("inventory_dir"))
    return Path(inventory) if Path(inventory).is_dir() else None


def beside(inventory: Path, variables: Mapping[str, Any]) -> Path:
    """Where what belongs to an inventory lies: beside its directory, in which all is read as inventory, or beside its file."""
    sources = [Path(source).absolute() for source in variables.get("ansible_inventory_sources") or []]
    return inventory.parent if inventory.absolute() in sources else inventory


def lock_file(
    asked: str, name: str, recipe: Path, inventory: Path | None, variables: Mapping[str, Any]
) -> Path:
    """The lock of the recipe of that name and file: in the directory that is asked for, else beside the recipe.

    A recipe of the collection may lie where nobody may write, and where the next release takes its place. Its lock is the
    inventory's.
    """
    if asked:
        folder = (inventory or Path.cwd()) / Path(asked).expanduser()
    elif recipe.parent.resolve() == SHIPPED:
        folder = (beside(inventory, variables) if inventory else Path.cwd()) / "locks"
    else:
        folder = recipe.parent
    return folder / f"{name}.lock.yml"


def failure(what: str, problems: list[Problem], cure: str = "") -> AnsibleActionFail:
    count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
    return AnsibleActionFail(
        "\n".join([f"{what}: {count}", *(f"  {problem}" for problem in problems), cure]).rstrip()
    )


def read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise AnsibleActionFail(f"{shown(path)}: expected a readable text file, seen {error}") from error


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _spec, arguments = self.validate_argument_spec(
            argument_spec={
                "name": {"type": "str", "required": True},
                "lock_dir": {"type": "str", "default": ""},
                "lock": {"type": "str", "choices": ["enforce", "ignore"], "default": "enforce"},
            }
        )
        variables = task_vars or {}
        inventory = home(variables)
        path = find(arguments["name"], inventory, [Path.cwd(), Path(self._loader.get_basedir())])
        recipe = load(path, inventory)
        lock_path = lock_file(arguments["lock_dir"], recipe["name"], path, inventory, variables)
        return result | {
            "changed": False,
            "name": arguments["name"],
            "recipe": recipe,
            "lock": self._lock(recipe, path, lock_path) if arguments["lock"] == "enforce" else {},
            "recipe_path": str(path),
            "lock_path": str(lock_path),
        }

    @staticmethod
    def _lock(recipe: dict[str, Any], path: Path, lock_path: Path) -> dict[str, Any]:
        if not lock_path.exists():
            return {}
        lock, problems = _lock.parse(read(lock_path), shown(lock_path))
        if problems:
            raise failure(
                f"the lock of recipe '{recipe['name']}' is not valid",
                problems,
                "Take the file from your version control, or make it anew: ansible-playbook sparkfleet.vllm.lock",
            )
        differences = _lock.against(recipe, lock)
        if differences:
            raise AnsibleActionFail(_lock.outdated(shown(path), shown(lock_path), differences))
        return lock
