#!/usr/bin/env python3
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on a host of the benchmark: a module of the collection, without Ansible's way to it, and what the measurements need.

bench_module.py module NAME         the module, with the options from stdin (JSON); its result on stdout
bench_module.py payload             {files: {path: size}} from stdin: random files, the manifest's files on stdout
bench_module.py sparse              {store, repository, commit, files} from stdin: sparse files of those sizes, and a
                                    stat cache that vouches for them. Their hashes are made up: nobody reads them
bench_module.py wait STORE PATH...  until the peer of STORE is whole: seconds since 1970 when the last PATH was
                                    promoted, on stdout
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

COLLECTION = "ansible_collections.sparkfleet.vllm.plugins"
BLOCK = 1024 * 1024
WAIT = 3600.0


def module(name: str) -> None:
    from ansible.module_utils.testing import patch_module_args

    with patch_module_args(json.load(sys.stdin)):
        importlib.import_module(f"{COLLECTION}.modules.{name}").main()


def payload() -> None:
    asked = json.load(sys.stdin)
    files: dict[str, Any] = {}
    for name, size in asked["files"].items():
        path = Path(asked["folder"]) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with path.open("wb") as file:
            for start in range(0, size, BLOCK):
                block = os.urandom(min(BLOCK, size - start))
                digest.update(block)
                file.write(block)
        files[name] = {"size": size, "sha256": digest.hexdigest()}
    print(json.dumps(files))


def sparse() -> None:
    snapshot = importlib.import_module(f"{COLLECTION}.module_utils._models.snapshot")
    compare = importlib.import_module(f"{COLLECTION}.module_utils._models.compare")
    store = importlib.import_module(f"{COLLECTION}.module_utils._common.paths")
    asked = json.load(sys.stdin)
    folder = Path(store.snapshot_path(asked["store"], asked["repository"], asked["commit"]))
    vouched: dict[str, list[Any]] = {}
    for name, file in asked["files"].items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as out:
            out.truncate(file["size"])
        path.chmod(snapshot.FILE_MODE)
        vouched[name] = [*compare.signature(path.stat()), file["sha256"]]
    cache = {"version": compare.CACHE_VERSION, "files": vouched}
    (folder.parent / f".verified-{asked['commit']}.json").write_text(json.dumps(cache))


def wait(store: str, *paths: str) -> None:
    status = Path(store) / "models" / ".peer" / "status.json"
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        # A rename sets the change time of what is renamed. So this is the moment of the promotion, not of this look.
        if all(Path(path).is_dir() for path in paths):
            print(max(Path(path).stat().st_ctime for path in paths))
            return
        found = json.loads(status.read_text()) if status.exists() else {}
        if found.get("state") == "failed":
            sys.exit(f"expected the snapshot from the other hosts, seen: {found['problem']}")
        time.sleep(0.25)
    sys.exit(f"expected the snapshot within {WAIT:.0f} s, seen none")


if __name__ == "__main__":
    tasks: dict[str, Callable[..., None]] = {
        "module": module,
        "payload": payload,
        "sparse": sparse,
        "wait": wait,
    }
    tasks[sys.argv[1]](*sys.argv[2:])
