# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of C(bundle_write): reads recipe, lock and patches. The module does the rest, and reports progress."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.utils.vars import merge_hash

from ..module_utils._bundle import layout
from ..module_utils._common.paths import patch_path
from ..module_utils._recipe import lock as locks
from ..plugin_utils import recipes
from ..plugin_utils.background import run_with_progress
from ..plugin_utils.under_lock import UnderLock

TIMEOUT = 14400


def texts(arguments: Mapping[str, Any], inventory: Path | None = None) -> dict[str, bytes]:
    """{path in the bundle: bytes} of what the controller has.

    :raises OSError: a file cannot be read
    :raises AnsibleActionFail: the recipe cannot be read, or is not valid
    """
    lock = arguments["lock"]
    # A recipe that this one extends is not there where the bundle is used.
    found = {layout.RECIPE: recipes.whole_text(Path(arguments["recipe_path"]), inventory).encode()}
    path = Path(arguments["lock_path"])
    # Check mode does not write a lock of first use. This is what would be in it.
    found[layout.LOCK] = path.read_bytes() if path.exists() else locks.render(plain(lock)).encode()
    for patch in lock["patches"]:
        found[patch_path("", patch["sha256"], patch["name"])] = Path(patch["src"]).expanduser().read_bytes()
    return found


def plain(lock: Mapping[str, Any]) -> dict[str, Any]:
    """The lock as its file holds it: without the keys that its patches have at run time only."""
    (patch_keys,) = (key.keys for key in locks.SCHEMA if key.name == "patches")
    names = [key.name for key in patch_keys]
    return {**lock, "patches": [{name: patch[name] for name in names} for patch in lock["patches"]]}


class ActionModule(UnderLock):
    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        try:
            held = texts(arguments, recipes.home(task_vars or {}))
        except OSError as error:
            raise AnsibleActionFail(
                f"expected recipe, lock and patches on the controller, seen {error}; run the recipe role first"
            ) from error
        arguments["texts"] = {path: base64.b64encode(content).decode() for path, content in held.items()}
        timeout = int(arguments.get("timeout") or TIMEOUT)
        return merge_hash(
            result, run_with_progress(self, "sparkfleet.vllm.bundle_write", arguments, task_vars, timeout)
        )
