# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Puts a body of a few megabytes and its draft into a Hub's directory, and prints their lock as variables:   publish.py DIR"""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

LAB = Path(__file__).resolve().parents[1]
COMMITS = {"body": "a" * 40, "draft": "d" * 40}


def publish(root: Path) -> dict[str, Any]:
    folders = {name: root / "arm64" / name for name in COMMITS}
    for folder in folders.values():
        folder.mkdir(parents=True)
    weights = [sys.executable, str(LAB / "vllm/weights.py"), "--acceptance", "0.69"]
    places = [f"--{name}={folder}" for name, folder in folders.items()]
    subprocess.run([*weights, *places], check=True, stdout=subprocess.DEVNULL)
    # Large enough for more than one piece of a torrent.
    (folders["body"] / "big.bin").write_bytes(random.Random("arm64").randbytes(8_000_000))
    lock = {}
    for name, folder in folders.items():
        files = {
            path.name: {"size": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
            for path in sorted(folder.iterdir())
        }
        lock[name] = {
            "repository": f"arm64/{name}",
            "revision": "main",
            "commit": COMMITS[name],
            "files": files,
        }
        (folder / ".hub.json").write_text(json.dumps({"commit": COMMITS[name]}))
    return lock


if __name__ == "__main__":
    print(json.dumps({"locked": publish(Path(sys.argv[1]))}))
