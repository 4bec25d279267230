# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Publishes lab/body, lab/draft and lab/misfit in a Hub's directory and prints their lock, from the bytes themselves."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
from pathlib import Path

ROOT = Path("/srv/hub/root")
TOKEN = "hf_of_the_scenario"

for name in ("body", "draft", "misfit"):
    (ROOT / "lab" / name).mkdir(parents=True, exist_ok=True)
for draft in ("draft", "misfit"):
    command = [
        "weights.py",
        "--body",
        str(ROOT / "lab/body"),
        "--draft",
        str(ROOT / "lab" / draft),
        "--acceptance",
        "0.69",
    ]
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL, cwd="/srv/hub")
(ROOT / "lab/body/big.bin").write_bytes(random.Random("big").randbytes(20_000_000))
config = json.loads((ROOT / "lab/misfit/config.json").read_text())
config["text_config"]["vocab_size"] += 64
(ROOT / "lab/misfit/config.json").write_text(json.dumps(config))

lock = {}
for number, name in enumerate(("body", "draft", "misfit")):
    folder = ROOT / "lab" / name
    commit = str(number) * 40
    lock[name] = {
        "repository": f"lab/{name}",
        "revision": "main",
        "commit": commit,
        "files": {
            path.name: {"size": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
            for path in sorted(folder.iterdir())
            if path.name != ".hub.json"
        },
    }
    about = {"commit": commit, "gated": name == "body", "tokens": [TOKEN]}
    (folder / ".hub.json").write_text(json.dumps(about))
Path("/srv/hub/lock.json").write_text(json.dumps(lock))
print(json.dumps(lock))
