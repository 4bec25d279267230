# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What somebody who joins is told and given: targets and paths that are there, hooks that download nothing, one way to test."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.recipe import ROOT
from packaging.requirements import Requirement

PAGES = [
    "CONTRIBUTING.md",
    "README.md",
    "docs/releasing.md",
    "molecule/lab/README.md",
    ".github/pull_request_template.md",
    ".ci/run",
]
HOOKS: list[dict[str, Any]] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]


def targets() -> set[str]:
    """Names that `make` takes, by what it prints of its own rules."""
    done = subprocess.run(
        ["make", "--print-data-base", "--question", "--no-builtin-rules", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return set(re.findall(r"^([a-z][a-z0-9-]*):(?!=)", done.stdout, re.M))


def named(text: str) -> set[str]:
    """Targets in commands of a text: ``make -j2 lint unit NAME=x``, in a block or between backquotes."""
    found = re.findall(r"(?:^ {4}|`|&& |exec )make((?: +-\S+)*(?: +[a-z][a-z0-9-]+)+)", text, re.M)
    return {word for words in found for word in words.split() if not word.startswith("-")}


@pytest.mark.parametrize("page", PAGES)
def test_a_target_that_a_page_names_is_one_of_make(page):
    # What follows two blanks is said of the command, and no part of it.
    text = re.sub(r"(?<=\S) {2,}.*$", "", (ROOT / page).read_text(), flags=re.M)
    assert named(text)
    assert named(text) - targets() == set()


def test_a_target_is_found_in_each_way_to_name_it():
    text = "    make -j2 lint\n`make unit`, make it so\n    make venv && . x\n    make test test-long NAME=x\nexec make arm64\n"
    assert named(text) == {"lint", "unit", "venv", "test", "test-long", "arm64"}


def test_what_a_contributor_is_pointed_to_is_there():
    quoted = re.findall(r"`([\w.*/-]+)`", (ROOT / "CONTRIBUTING.md").read_text())
    paths = [path for path in quoted if "/" in path or path.endswith((".md", ".yml"))]
    anywhere = [
        path for path in paths if not (list(ROOT.glob(path)) or list(ROOT.glob(f"roles/*/**/{path}")))
    ]
    assert len(paths) > 25
    assert anywhere == []


def test_hooks_are_programs_of_the_environment_and_download_nothing():
    lines = (ROOT / "requirements/dev.in").read_text().splitlines()
    wanted = {Requirement(line).name for line in lines if line and not line.startswith(("#", "-r"))}
    assert [repository["repo"] for repository in HOOKS] == ["local"]
    for hook in HOOKS[0]["hooks"]:
        program = Path(hook["entry"].split()[0])
        assert hook["language"] == "system" and "additional_dependencies" not in hook, hook
        assert program.parent == Path(".venv/bin") and program.name in wanted, hook


def test_a_public_forge_runs_what_continuous_integration_runs_and_gives_it_nothing():
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())
    (job,) = workflow["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert workflow["permissions"] == {"contents": "read"}
    for step in job["steps"]:
        assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", step.get("uses", f"actions/x@{'0' * 40}")), step
    pythons = {
        (ROOT / f"requirements/{name}.txt").read_text().partition("(Python ")[2].partition(")")[0]
        for name in ("dev", "newest")
    }
    (versions,) = (step["with"]["python-version"] for step in job["steps"] if "setup-python" in str(step))
    assert set(versions.split()) == pythons
