# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where recipes and their locks lie on the controller, and how to read one: by name or by path, with all that it extends."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.utils.display import Display

from ..module_utils._common.terminal import printable
from ..module_utils._recipe import document
from ..module_utils._recipe import recipe as recipes
from ..module_utils._recipe.document import Problem

SHIPPED = Path(__file__).resolve().parents[2] / "recipes"
ENDINGS = (".yml", ".yaml")


def shown(path: Path) -> str:
    """The shortest form of a path, seen from here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def places(inventory: Path | None, extending: Path | None = None) -> list[Path]:
    """The directories of named recipes: the shipped ones, those beside the inventory, and that of the recipe that extends one."""
    # Beside the hosts file, and beside its directory: files inside an inventory directory are read as inventory.
    found = [SHIPPED, *([inventory / "recipes", inventory.parent / "recipes"] if inventory else [])]
    # The inventory of an automation controller's job has none beside it, so its recipes are given by path.
    found += [extending.parent] if extending else []
    each: dict[Path, Path] = {}
    for place in found:
        each.setdefault(place.resolve(), place)
    return list(each.values())


def named(name: str, inventory: Path | None, extending: Path | None = None) -> list[Path]:
    """Every file of a recipe with that name."""
    return [
        path
        for place in places(inventory, extending)
        for ending in ENDINGS
        if (path := place / f"{name}{ending}").is_file()
    ]


def by_name(name: str, inventory: Path | None, extending: Path | None = None) -> Path:
    """The file of the recipe with that name, in one of the :func:`places`.

    :raises LookupError: there is none, or more than one
    """
    found = named(name, inventory, extending)
    if len(found) > 1:
        raise LookupError(
            f"expected one, seen {' and '.join(map(shown, found))}; rename yours, or give its path"
        )
    if found:
        return found[0]
    names = sorted(
        path.stem
        for place in places(inventory, extending)
        for path in place.glob("*.y*ml")
        if path.suffix in ENDINGS and not path.stem.endswith(".lock")
    )
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    raise LookupError(
        f"expected one of {', '.join(names) or 'none'} in {' or '.join(map(shown, places(inventory, extending)))}, seen '{name}'"
        + (f"; nearest: {close[0]}" if close else "")
    )


def find(asked: str, inventory: Path | None, bases: list[Path]) -> Path:
    """The file of a recipe: by name among the shipped ones and beside the inventory, or by path.

    :raises AnsibleActionFail: no such recipe, or two with that name
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
    """The whole recipe of a file, with what it extends. Warns of options that are unknown here.

    :raises AnsibleActionFail: with every problem of the recipe
    """

    def base(name: str) -> tuple[str, str]:
        extended = by_name(name, inventory, path)
        return read(extended), shown(extended)

    recipe, problems = recipes.parse(
        read(path), shown(path), base, warn=lambda unknown: Display().warning(printable(str(unknown)))
    )
    if problems:
        raise failure(f"recipe '{path.stem}' is not valid", problems)
    return recipe


def whole_text(path: Path, inventory: Path | None) -> str:
    """The file of a recipe unchanged; or, if it extends another, as a recipe that is complete in itself.

    :raises AnsibleActionFail: the recipe is not valid
    """
    text, recipe = read(path), load(path, inventory)
    if "extends" not in document.load(text, shown(path)).data:
        return text
    return f"---\n# Made of {path.name} and all that it extends.\n{document.dump(recipe)}"


def home(variables: Mapping[str, Any]) -> Path | None:
    """The directory of the inventory. Without an inventory file Ansible gives none, or the text 'None'."""
    inventory = str(variables.get("inventory_dir"))
    return Path(inventory) if Path(inventory).is_dir() else None


def _normal(path: Path) -> Path:
    """An absolute path without '..'. Links are not resolved, since Ansible reads a link where it lies."""
    return Path(os.path.normpath(path.absolute()))


def refuse_as_inventory(
    recipe: Path, lock: Path, inventory: Path | None, variables: Mapping[str, Any]
) -> None:
    """Refuse recipes in an inventory directory. A recipe may be a stranger's, and a file there can hold variables that run programs.

    :raises AnsibleActionFail: Ansible has read a recipe or a lock as inventory, before anybody checked it
    """
    read_whole = [
        _normal(Path(source))
        for source in variables.get("ansible_inventory_sources") or []
        if Path(source).is_dir()
    ]
    near = sorted((inventory / "recipes").glob("*.y*ml")) if inventory else []
    for path in (recipe, *([lock] if lock.exists() else []), *near):
        for folder in read_whole:
            if _normal(path).is_relative_to(folder):
                raise AnsibleActionFail(
                    f"expected recipes and locks beside the directory {shown(folder)}, which Ansible reads whole as inventory, "
                    f"seen {shown(path)} in it; do: read it as you would a program, then move it to "
                    f"{shown(folder.parent / path.parent.name)}"
                )


def beside(inventory: Path, variables: Mapping[str, Any]) -> Path:
    """The place for files that belong to an inventory: beside its directory, which Ansible reads whole, or beside its file."""
    sources = [Path(source).absolute() for source in variables.get("ansible_inventory_sources") or []]
    return inventory.parent if inventory.absolute() in sources else inventory


def lock_file(
    asked: str, name: str, recipe: Path, inventory: Path | None, variables: Mapping[str, Any]
) -> Path:
    """The lock of the recipe with that name and file: in the wanted directory, else beside the recipe.

    A recipe of the collection may lie where nobody may write, and where the next release replaces it. So its lock belongs to the
    inventory.
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
    lines = [f"{what}: {count}", *(f"  {problem}" for problem in problems), cure]
    return AnsibleActionFail(printable("\n".join(lines).rstrip()))


def read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise AnsibleActionFail(f"{shown(path)}: expected a readable text file, seen {error}") from error
