# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules hf_snapshot and hf_snapshot_info, called in this process on one store."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.sparkfleet.vllm.plugins.modules import hf_snapshot, hf_snapshot_info
from helpers import printed

FILES = {"config.json": b"{}", "model.safetensors": bytes(range(256)) * 4000}
SECRET = "hf_verysecret"
Call = Callable[..., dict[str, Any]]


def callers(lab: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Call, Call]:
    """hf_snapshot and hf_snapshot_info for the repository org/body, which the Hub of the lab gets."""
    lock = lab.add("org/body", FILES)
    (folder / "tmp").mkdir(exist_ok=True)

    def caller(module: ModuleType, **always: Any) -> Call:
        def call(check: bool = False, diff: bool = False, **arguments: Any) -> dict[str, Any]:
            given = {
                "snapshots": [{**lock, "revision": "main"}],
                "store": str(folder / "store"),
                "_ansible_check_mode": check,
                "_ansible_diff": diff,
                "_ansible_remote_tmp": str(folder / "tmp"),
                **always,
                **arguments,
            }
            capsys.readouterr()
            mask = os.umask(0o022)
            with patch_module_args(given), pytest.raises(SystemExit):
                module.main()
            os.umask(mask)
            result = printed.result(capsys.readouterr().out)
            assert SECRET not in json.dumps(result)
            return result

        return call

    return caller(hf_snapshot, endpoint=lab.url, retries=0, disk_reserve=0), caller(hf_snapshot_info)
