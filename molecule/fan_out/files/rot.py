# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on a host: changes a byte in each block of a promoted file as a failing disk would, so that no stat tells.

A write changes the ctime, so the caches beside the snapshot are told the new one.   rot.py SNAPSHOT FILE
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

snapshot, name = Path(sys.argv[1]), sys.argv[2]
path = snapshot / name
before = path.stat()
data = bytearray(path.read_bytes())
for place in range(0, len(data), 16384):
    data[place] ^= 1
with path.open("r+b") as file:
    file.write(data)
os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
old, new = str(before.st_ctime_ns), str(path.stat().st_ctime_ns)
for cache in snapshot.parent.glob(f".*-{snapshot.name}.json"):
    cache.write_text(cache.read_text().replace(old, new))
