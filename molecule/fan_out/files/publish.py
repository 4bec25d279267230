# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Publishes fan/body and fan/draft, random bytes, in the Hub's directory that is given, with their lock beside them."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import sys
from pathlib import Path

FILES = {
    "body": {
        "model-1.safetensors": 24_000_000,
        "model-2.safetensors": 24_000_001,
        "config.json": 700,
        "empty": 0,
    },
    "draft": {"model.safetensors": 4_000_000, "tokenizer/tokenizer.json": 20_000},
}

hub = Path(sys.argv[1])
shutil.rmtree(hub / "fan", ignore_errors=True)
lock = {}
for number, (name, files) in enumerate(FILES.items(), 1):
    commit = str(number) * 40
    locked = {}
    for path, size in files.items():
        data = random.Random(path).randbytes(size)
        target = hub / "fan" / name / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        locked[path] = {"size": size, "sha256": hashlib.sha256(data).hexdigest()}
    (hub / "fan" / name / ".hub.json").write_text(json.dumps({"commit": commit}))
    lock[name] = {"repository": f"fan/{name}", "revision": "main", "commit": commit, "files": locked}
(hub / "fan" / "lock.json").write_text(json.dumps(lock))
