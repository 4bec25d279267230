"""CHANGELOG.md as antsibull-changelog writes it, for tests and `make changelog`: the releases, and what the next one will say."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
# What the tool reads, new modules and plugins among it.
READ = ("galaxy.yml", "changelogs", "meta", "playbooks", "plugins", "roles")


def tool(*arguments: str, cwd: Path = ROOT) -> str:
    """What antsibull-changelog says.

    :raises AssertionError: it refuses
    """
    program = Path(sys.executable).with_name("antsibull-changelog")
    done = subprocess.run([program, *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def page(root: Path = ROOT) -> str:
    """The next release is made in a copy, if there is anything to say of it, and marked as not made yet."""
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name)
        for part in READ:
            if (root / part).is_dir():
                shutil.copytree(root / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(root / part, copy / part)
        coming = any((copy / "changelogs/fragments").glob("*.yml"))
        tool("release" if coming else "generate", cwd=copy)
        text = (copy / "CHANGELOG.md").read_text()
    if not coming:
        return text
    heading = "## v" + re.sub(r"\W", r"\\\g<0>", yaml.safe_load((root / "galaxy.yml").read_text())["version"])
    assert f"\n{heading}\n" in text, f"expected '{heading}', seen none"
    return text.replace(f"\n{heading}\n", f"\n{heading} \\(unreleased\\)\n")


if __name__ == "__main__":
    sys.stdout.write(page())
