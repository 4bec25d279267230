# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is seen of a container: its times, and where a path of its process leads."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._gate.container import (
    parse_time,
    resolve_in_root,
    stale_mounts,
)
from helpers.gate import process_with_links


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    return process_with_links(tmp_path)


@pytest.mark.parametrize("text", ["", "yesterday", "2026-11-23 21:00:00"])
def test_other_times_are_errors(text: str) -> None:
    with pytest.raises(ValueError, match="RFC 3339"):
        parse_time(text)


def test_times_of_other_zones() -> None:
    assert parse_time("1970-01-01T02:00:00.5+02:00") == 0.5


@pytest.mark.parametrize(
    "path", ["/usr/lib/python3.12/vllm/p.py", "/opt/vllm/p.py", "/opt/up/p.py", "/opt/./vllm/p.py"]
)
def test_links_stay_inside_the_root_of_the_process(proc: Path, path: str) -> None:
    root = proc / "42/root"
    assert resolve_in_root(root, path) == root / "usr/lib/python3.12/vllm/p.py"


def test_a_loop_of_links_is_an_error(proc: Path) -> None:
    with pytest.raises(OSError, match="too many links"):
        resolve_in_root(proc / "42/root", "/opt/loop")


def test_a_directory_that_was_replaced_since_it_was_mounted(tmp_path: Path) -> None:
    model, root = tmp_path / "models/b", tmp_path / "proc/7/root"
    model.mkdir(parents=True)
    (root / "models").mkdir(parents=True)
    # As a bind mount has it: the very directory, under another name.
    (root / "models/b").symlink_to("/same")
    (root / "same").mkdir()
    mounts = {"/models/b": str(model), "/models/gone": str(tmp_path / "gone")}
    assert stale_mounts(7, mounts, tmp_path / "proc") == ["/models/b"]
    (root / "same").rmdir()
    model.rename(root / "same")
    model.symlink_to(root / "same")
    assert stale_mounts(7, mounts, tmp_path / "proc") == []
