# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is seen of a container: its times, and where a path of its process leads."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._gate import container
from ansible_collections.sparkfleet.vllm.plugins.module_utils._gate.container import (
    FileSeen,
    parse_time,
    read_file,
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


def pipe(place: Path) -> None:
    os.mkfifo(place)


def endless_device(place: Path) -> None:
    place.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [pipe, endless_device, Path.mkdir])
def test_what_is_no_plain_file_is_not_read(tmp_path: Path, make: Callable[[Path], None]) -> None:
    place = tmp_path / "p.py"
    make(place)
    seen: list[FileSeen] = []
    # A daemon: one that waits for a pipe would keep the tests from ending.
    reader = threading.Thread(target=lambda: seen.append(read_file(place)), daemon=True)
    reader.start()
    reader.join(5)
    assert [one.error for one in seen] == ["not a plain file"]


def test_a_plain_file_is_read_to_its_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "p.py"
    place.write_bytes(b"x" * 100)
    assert read_file(place).md5 == hashlib.md5(b"x" * 100, usedforsecurity=False).hexdigest()
    monkeypatch.setattr(container, "LONGEST_READ", -1.0)
    assert "no end within" in (read_file(place).error or "")
    monkeypatch.setattr(container, "LARGEST_FILE", 99)
    assert "more than 0 MiB" in (read_file(place).error or "")
