# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""C(bundle_import), on the controller alone. What it writes decides what every host gets, so it replaces nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ..module_utils._bundle import layout
from ..module_utils._common import files
from ..module_utils._common.paths import patch_path
from ..module_utils._recipe import lock as locks
from ..module_utils._recipe import patch_cache
from ..module_utils._recipe.recipe import parse as parse_recipe
from ..plugin_utils import recipes


@dataclass(frozen=True)
class Contents:
    """Recipe, lock and patches of a bundle, checked. `patches` is {(sha256, name): bytes}."""

    recipe: dict[str, Any]
    recipe_text: bytes
    lock: dict[str, Any]
    lock_text: bytes
    patches: dict[tuple[str, str], bytes]


def choose(path: str, looks: Mapping[str, Mapping[str, Any]]) -> str:
    """The first host with a bundle, if every host can use it.

    :raises AnsibleActionFail: none has one, or a host cannot use it
    """
    found = [host for host, look in looks.items() if look.get("found")]
    if not found:
        broken = [f"{host}: {look['problem']}" for host, look in looks.items() if look.get("problem")]
        seen = (
            "\n  ".join(["one that cannot be used:", *broken])
            if broken
            else f"none on {', '.join(looks) or 'no host'}"
        )
        raise AnsibleActionFail(
            f"expected a bundle at {path} on a host of this run, seen {seen}\n"
            "do: mount the disk, correct spark_bundle, or have the host that holds it in the run (--limit)"
        )
    host, bundle = found[0], looks[found[0]]["bundle"]
    made_for = (bundle["machine"], bundle["python"])
    other = [
        f"{name} ({look['machine']}, Python {look['python']})"
        for name, look in looks.items()
        if (look["machine"], look["python"]) != made_for
    ]
    if other:
        raise AnsibleActionFail(
            f"the bundle on {host}: expected hosts of its kind ({bundle['machine']}, Python {bundle['python']}), seen "
            f"{', '.join(other)}; make a bundle on a host of that kind, and run for each kind with --limit"
        )
    if not looks[host]["address"]:
        raise AnsibleActionFail(
            f"{host}: expected one address on which the others reach its bundle, seen several; set spark_interface or "
            "spark_address"
        )
    return host


def check(texts: Mapping[str, str], name: str, host: str) -> Contents:
    """:param name: of the recipe; its file must have the same name
    :raises AnsibleActionFail: recipe, lock and patches of the bundle do not fit together
    """
    held = {path: base64.b64decode(text) for path, text in texts.items()}
    recipe_text, lock_text = held[layout.RECIPE], held[layout.LOCK]
    cure = "Copy the bundle again, or make it again: ansible-playbook sparkfleet.vllm.bundle"
    recipe, problems = parse_recipe(recipe_text.decode(errors="replace"), f"{name}.yml")
    lock, more = locks.parse(lock_text.decode(errors="replace"), f"{host}:{layout.LOCK}")
    if problems or more:
        raise recipes.failure(f"the bundle on {host} is not valid", [*problems, *more], cure)
    if differences := locks.against(recipe, lock):
        raise AnsibleActionFail(
            locks.outdated(f"{host}:{layout.RECIPE}", f"{host}:{layout.LOCK}", differences)
        )
    patches = {}
    for patch in lock["patches"]:
        path = patch_path("", patch["sha256"], patch["name"])
        content = held.get(path)
        seen = hashlib.sha256(content).hexdigest() if content is not None else "none"
        if content is None or seen != patch["sha256"]:
            raise AnsibleActionFail(
                f"the bundle on {host}: expected {path} with the locked sha256, seen {seen}. {cure}"
            )
        patches[patch["sha256"], patch["name"]] = content
    return Contents(recipe, recipe_text, lock, lock_text, patches)


def held_recipe(asked: str, contents: Contents, home: Path | None, bases: list[Path]) -> Path | None:
    """The controller's own file of the bundle's recipe; None if there is none.

    :raises AnsibleActionFail: another recipe is asked for, or the controller's file differs
    """
    name = contents.recipe["name"]
    by_path = "/" in asked or asked.endswith(recipes.ENDINGS)
    if asked and not by_path and asked != name:
        raise AnsibleActionFail(
            f"expected recipe '{asked}' in the bundle, seen '{name}'; correct spark_recipe, or bring the bundle of "
            f"'{asked}'"
        )
    if not by_path and not recipes.named(name, home):
        return None
    path = recipes.find(asked or name, home, bases)
    recipe = recipes.load(path, home)
    if recipe != contents.recipe:
        keys = sorted(
            key for key in {*recipe, *contents.recipe} if recipe.get(key) != contents.recipe.get(key)
        )
        raise AnsibleActionFail(
            f"{recipes.shown(path)}: expected the recipe that the bundle was made of, seen a difference in "
            f"{', '.join(keys)}; take that edit back, or make the bundle again with it"
        )
    return path


def refuse_other_lock(path: Path, contents: Contents) -> None:
    """:raises AnsibleActionFail: the lock there is not the bundle's"""
    lock, problems = locks.parse(recipes.read(path), recipes.shown(path))
    if problems:
        raise recipes.failure(
            f"the lock of recipe '{contents.recipe['name']}' is not valid",
            problems,
            "Take it from version control",
        )
    if lock != contents.lock:
        sides = locks.diff(lock, contents.lock)
        raise AnsibleActionFail(
            f"{recipes.shown(path)}: expected the lock that the bundle was made of, seen another.\nhere:\n"
            f"{sides['before']}in the bundle:\n{sides['after']}"
            "do: bring the bundle that was made of this lock. To go by the bundle's instead, and only if you trust where "
            "it comes from, move this file away"
        )


class ActionModule(ActionBase):
    BYPASS_HOST_LOOP = True
    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _spec, arguments = self.validate_argument_spec(
            argument_spec={
                "path": {"type": "path", "required": True},
                "looks": {"type": "str", "required": True},
                "name": {"type": "str", "default": ""},
                "lock_dir": {"type": "str", "default": ""},
                "cache_dir": {"type": "path", "default": "~/.cache/sparkfleet"},
            }
        )
        variables = task_vars or {}
        looks = {}
        for host in variables["ansible_play_hosts"]:
            look = variables["hostvars"][host].get(arguments["looks"])
            if look and "machine" in look:
                looks[host] = look
        chosen = choose(arguments["path"], looks)
        contents = check(looks[chosen]["texts"], looks[chosen]["bundle"]["recipe"], chosen)
        try:
            placed = self._place(contents, arguments, variables)
        except OSError as error:
            raise AnsibleActionFail(
                f"expected to write recipe, lock and patches of the bundle on the controller, seen {error}; set "
                "recipe_lock_dir and recipe_cache_dir to directories of yours"
            ) from error
        chosen_look = looks[chosen]
        return (
            result
            | placed
            | {
                "host": chosen,
                "address": chosen_look["address"],
                "wheels": chosen_look["bundle"]["wheels"],
            }
        )

    def _place(
        self, contents: Contents, arguments: Mapping[str, Any], variables: Mapping[str, Any]
    ) -> dict[str, Any]:
        home = recipes.home(variables)
        name, cache = contents.recipe["name"], Path(arguments["cache_dir"]).expanduser()
        # In check mode, later tasks still have to read them somewhere.
        aside = cache / "bundles" / hashlib.sha256(contents.recipe_text + contents.lock_text).hexdigest()
        writes: dict[Path, bytes] = {}

        path = held_recipe(arguments["name"], contents, home, [Path.cwd(), Path(self._loader.get_basedir())])
        loaded = arguments["name"] or name
        if path is None:
            path = (recipes.beside(home, variables) / "recipes" if home else aside) / f"{name}.yml"
            writes[path] = contents.recipe_text
            if not home:
                loaded = str(path)
        lock_path = recipes.lock_file(arguments["lock_dir"], name, path, home, variables)
        if lock_path.exists():
            refuse_other_lock(lock_path, contents)
        else:
            writes[lock_path] = contents.lock_text

        lock_dir = arguments["lock_dir"]
        if self._task.check_mode and writes:
            files.write(aside / f"{name}.yml", contents.recipe_text)
            files.write(aside / f"{name}.lock.yml", contents.lock_text)
            loaded, lock_dir = str(aside / f"{name}.yml"), str(aside)
        else:
            for target, content in writes.items():
                files.write(target, content)
        for (sha256, patch), content in contents.patches.items():
            if patch_cache.cached(str(cache), sha256, patch) is None:
                patch_cache.keep(str(cache), patch, content)
        written = [recipes.shown(target) for target in writes]
        return {
            "changed": bool(writes),
            "recipe": loaded,
            "lock_dir": lock_dir,
            "written": written,
            "diff": {"before": "", "after": "".join(f"{target}\n" for target in written)},
        }
