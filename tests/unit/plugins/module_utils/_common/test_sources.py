# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sources of a program that stays on a host: all that it imports, the same from a folder and from the archive that Ansible sends."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._common import sources

PLUGINS = Path(__file__).resolve().parents[5] / "plugins"
ASK = "from ansible_collections.sparkfleet.vllm.plugins.module_utils._common import sources as s; print(s.digest(s.files({!r})))"
WATCHDOG, SERIES = "_watchdog.program", "_series.program"
PROGRAMS = pytest.mark.parametrize("entry", [WATCHDOG, SERIES])


def test_the_program_has_what_it_imports_and_no_more() -> None:
    names = set(sources.files(WATCHDOG))
    assert "__main__.py" in names and "sparkfleet/_watchdog/program.py" in names
    assert "sparkfleet/_vllm/metrics.py" in names
    own = {Path(name).stem for name in names if "/_watchdog/" in name} - {"__init__"}
    every = {path.stem for path in (PLUGINS / "module_utils/_watchdog").glob("*.py")}
    assert own == every - {"units", "install", "plan"}, "only modules need these"
    assert not [name for name in sources.files(SERIES) if "/_vllm/" in name or name.endswith("/install.py")]


@PROGRAMS
def test_no_part_of_the_program_needs_ansible_to_start(entry: str) -> None:
    for path, content in sources.files(entry).items():
        lines = content.decode().splitlines()
        assert not [line for line in lines if line.startswith(("from ansible", "import ansible"))], path


@PROGRAMS
def test_the_archive_of_ansible_gives_the_same_program(tmp_path: Path, entry: str) -> None:
    archive = tmp_path / "payload.zip"
    with zipfile.ZipFile(archive, "w") as made:
        prefix, folders = "ansible_collections/sparkfleet/vllm/plugins/module_utils", set()
        for path in (PLUGINS / "module_utils").rglob("*.py"):
            name = f"{prefix}/{path.relative_to(PLUGINS / 'module_utils')}"
            made.write(path, name)
            folders |= {str(folder) for folder in Path(name).parents} - {"."}
        for folder in folders:
            made.writestr(f"{folder}/__init__.py", "")
    command = f"import sys; sys.path.insert(0, {str(archive)!r}); {ASK.format(entry)}"
    done = subprocess.run([sys.executable, "-I", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == sources.digest(sources.files(entry))


def test_other_sources_are_another_program() -> None:
    files = sources.files(WATCHDOG)
    assert sources.digest(files) != sources.digest(sources.files(SERIES))
    assert sources.digest(files) != sources.digest(files | {"__main__.py": b""})
    assert sources.digest(files) == sources.digest(dict(reversed(files.items())))


def test_a_part_that_python_does_not_have_is_said() -> None:
    with pytest.raises(sources.SourceError, match=r"expected the source of .*_watchdog\.absent, seen none"):
        sources.files("_watchdog.absent")


def test_the_controller_has_the_same_program_as_a_host(monkeypatch):
    """There Ansible's own loader of collections gives the sources, and gives them as bytes."""
    before = sources.files("_unit.supervisor")
    found = importlib.util.find_spec

    class Loader:
        def __init__(self, loader):
            self._loader = loader

        def get_source(self, name):
            return self._loader.get_source(name).encode()

    def spec(name):
        one: Any = found(name)
        one.loader = Loader(one.loader)
        return one

    monkeypatch.setattr(importlib.util, "find_spec", spec)
    assert sources.files("_unit.supervisor") == before
    assert len(before) > 5
