# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Evidence stays within its bounds, and has no secret where it was cut."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._watchdog import evidence


def folder(place: Path, name: str, size: int = 1) -> None:
    (place / name).mkdir(parents=True)
    (place / name / "log").write_bytes(b"x" * size)


def test_the_oldest_go_first_and_the_newest_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"202611{day:02}T000000Z-wedged" for day in range(10, 23)]
    for name in names:
        folder(tmp_path, name)
    folder(tmp_path, ".20261130T000000Z-canary")
    evidence.prune(tmp_path)
    assert evidence.kept(tmp_path) == names[-10:]
    assert not list(tmp_path.glob(".*"))
    monkeypatch.setattr(evidence, "TOTAL", 1000)
    folder(tmp_path, "20261201T000000Z-wedged", 995)
    evidence.prune(tmp_path)
    assert evidence.kept(tmp_path) == [*names[-5:], "20261201T000000Z-wedged"]
    folder(tmp_path, "20261202T000000Z-wedged", 2000)
    evidence.prune(tmp_path)
    assert evidence.kept(tmp_path) == ["20261202T000000Z-wedged"]


def test_without_a_folder_nothing_is_kept(tmp_path: Path) -> None:
    assert evidence.kept(tmp_path / "none") == []


@pytest.mark.parametrize("before", range(0, 12))
def test_no_part_of_a_secret_is_left_where_a_text_is_cut(
    monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    monkeypatch.setattr(evidence, "PART", 20)
    secret = b"0123456789"
    shown = evidence.clean(b"a" * 50 + secret + b"b" * (10 + before), [secret.decode(), ""])
    assert len(shown) <= 20 and shown.endswith(b"b")
    assert not any(digit in shown for digit in secret)


def test_a_log_that_is_too_long_is_asked_for_anew_so_that_its_end_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def log(socket: str, container: str, lines: int, limit: int, timeout: float) -> bytes:
        asked.append(lines)
        return b"x" * min(limit, lines * 5000)

    monkeypatch.setattr(evidence.engine_socket, "log", log)
    host = evidence.Host(tmp_path)
    assert len(evidence.log(host, "vllm")) == 1_000_000
    assert asked == [2000, 200]
