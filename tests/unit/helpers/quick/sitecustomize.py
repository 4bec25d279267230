# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Spares the runs of ansible-playbook that tests start half of what their Python processes do. What they do stays the same.

Python imports this in each process whose PYTHONPATH names this directory: a run, and the modules that it executes here. Ansible hands a
module over as an archive of sources, and Python compiles what it imports from an archive each time, twice. Here it is compiled once,
and kept below .cache/bytecode, beside a checksum of the source. And a process that lives for seconds does without most searches for
garbage; one that Ansible forks for a task copies no memory for them.
"""

from __future__ import annotations

import _imp
import gc
import marshal
import os
import sys
import zipimport
from importlib.util import source_hash
from types import CodeType

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), *[os.pardir] * 4))
KEPT = os.path.join(ROOT, ".cache", "bytecode", sys.implementation.cache_tag)
compile_source = zipimport._compile_source  # type: ignore[attr-defined]


def compiled(path: str, source: bytes) -> CodeType:
    """In place of zipimport's own function: the code of that source."""
    name = path.rpartition(".zip" + os.sep)[2].replace(os.sep, ".")
    kept, checksum = os.path.join(KEPT, name), source_hash(source)
    try:
        with open(kept, "rb") as file:
            content = file.read()
        if content.startswith(checksum):
            code: CodeType = marshal.loads(content[len(checksum) :])
            _imp._fix_co_filename(code, path)  # type: ignore[attr-defined]
            return code
    except (OSError, ValueError, EOFError, TypeError):
        pass  # nobody kept it yet, or half of it
    code = compile_source(path, source)
    keep(kept, checksum + marshal.dumps(code))
    return code


def keep(path: str, content: bytes) -> None:
    """In one piece, since others read it meanwhile. A process that may not write does without."""
    new = f"{path}.{os.getpid()}"
    try:
        os.makedirs(KEPT, exist_ok=True)
        with open(new, "wb") as file:
            file.write(content)
        os.replace(new, path)
    except OSError:
        pass


zipimport._compile_source = compiled  # type: ignore[attr-defined]
gc.set_threshold(100_000)
os.register_at_fork(before=gc.freeze)
