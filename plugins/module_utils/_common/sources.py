# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sources of a program that stays on a host, as files of a folder of its own. They are those that this very process was given, wherever from: a
collection on a disk, or the archive that Ansible sends to a host."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

from . import files as whole_files

PACKAGE = "sparkfleet"
_START = """\
import sys

from {package}.{entry} import main

raise SystemExit(main(sys.argv))
"""
_HERE = __name__.rpartition(".")[0].rpartition(".")[0]
"""The package that holds all packages that travel."""


class SourceError(RuntimeError):
    """A part of the program is not where Python says that it is."""


def files(entry: str) -> dict[str, bytes]:
    """{path below the folder: content}. `python FOLDER` runs it.

    :param entry: package and module whose `main` takes the arguments and returns the exit status, such as `_watchdog.program`
    :raises SourceError: Python does not have the text of a part
    """
    found: dict[str, str] = {}
    pending = [entry]
    while pending:
        name = pending.pop()
        if name not in found:
            found[name] = _source(name)
            pending += _imported(name, found[name])
    start = _START.format(package=PACKAGE, entry=entry)
    made = {f"{PACKAGE}/{name.replace('.', '/')}.py": text for name, text in found.items()}
    made |= {f"{path.rpartition('/')[0]}/__init__.py": "" for path in made}
    return {
        path: text.encode()
        for path, text in sorted({**made, f"{PACKAGE}/__init__.py": "", "__main__.py": start}.items())
    }


def digest(sources: Mapping[str, bytes]) -> str:
    """Names one program on its host: the same sources have the same one."""
    return sha256(sources)[:16]


def sha256(sources: Mapping[str, bytes]) -> str:
    """Names one program in the store, where everything has such a name."""
    whole = hashlib.sha256()
    for path, content in sorted(sources.items()):
        whole.update(f"{path} {len(content)}\n".encode() + content)
    return whole.hexdigest()


def put(
    folder: Path, sources: Mapping[str, bytes], prepare: Callable[[Path], object] = lambda draft: None
) -> None:
    """Make a folder of a program, whole or not there. What is there goes.

    :param prepare: gets the folder before it has its name
    :raises OSError: something refuses
    """
    folder.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    draft = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    try:
        for path, text in sources.items():
            whole_files.write(draft / path, text)
        prepare(draft)
        whole_files.remove(folder)
        draft.rename(folder)
    finally:
        whole_files.remove(draft)


def _source(name: str) -> str:
    """:raises SourceError: Python does not have its text"""
    full = f"{_HERE}.{name}"
    spec = importlib.util.find_spec(full)
    loader = spec.loader if spec else None
    text = loader.get_source(full) if loader is not None and hasattr(loader, "get_source") else None
    if text is None:
        raise SourceError(f"expected the source of {full}, seen none; install the collection again")
    # On the controller the loader of collections gives bytes.
    return text.decode() if isinstance(text, bytes) else str(text)


def _imported(name: str, text: str) -> list[str]:
    """The files that a file imports relatively, as package and module: `_common.files`."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.level:
            above = name.split(".")[: -node.level]
            parts = [*above, *(node.module or "").split(".")] if node.module else above
            found += (
                [".".join(parts)]
                if len(parts) > 1
                else [".".join([*parts, each.name]) for each in node.names]
            )
    return found
