# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller side of patch_pin: what it reads, and what it says differs."""

from __future__ import annotations

from hashlib import md5, sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.action import patch_pin


def pin(
    monkeypatch: pytest.MonkeyPatch,
    patches: list[dict[str, Any]],
    check: bool,
    answer: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """:param answer: of the module; None: it must not be asked"""
    action = object.__new__(patch_pin.ActionModule)
    action._task = SimpleNamespace(args={"patches": patches}, check_mode=check, async_val=0)
    monkeypatch.setattr(patch_pin.UnderLock, "run", lambda *_: {})

    def execute(*_: Any, **__: Any) -> dict[str, Any]:
        assert answer is not None
        return dict(answer)

    action._execute_module = execute
    result: dict[str, Any] = action.run(task_vars={})
    return result


@pytest.fixture
def patch(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "p.py").write_bytes(b"x = 1\n")
    sums = {"md5": md5(b"x = 1\n").hexdigest(), "sha256": sha256(b"x = 1\n").hexdigest()}
    return {"name": "p.py", "src": str(tmp_path / "p.py"), "size": 6, **sums}


def test_a_recipe_without_patches_asks_no_host(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pin(monkeypatch, [], check=False) == {"changed": False, "patches": []}
    assert pin(monkeypatch, [], check=True)["drift"]["subjects"] == ["patches"]


def test_what_differs_is_told_in_check_mode_alone(
    monkeypatch: pytest.MonkeyPatch, patch: dict[str, Any]
) -> None:
    answer = {
        "patches": [{"host_path": "/srv/p", "md5": patch["md5"]}],
        "diff": {"before": "", "after": "/srv/p\n"},
    }
    result = pin(monkeypatch, [patch], True, answer)
    assert [finding["kind"] for finding in result["drift"]["findings"]] == ["patch-store"]
    assert "drift" not in pin(monkeypatch, [patch], False, answer)


def test_a_patch_that_is_not_the_locked_one_is_told_before_any_host_is_asked(
    monkeypatch: pytest.MonkeyPatch, patch: dict[str, Any]
) -> None:
    result = pin(monkeypatch, [patch | {"sha256": "0" * 64}], check=True)
    assert result["failed"] and result["msg"].startswith("patches: ")
    assert list(result["drift"]["unknown"]) == ["patches"]
