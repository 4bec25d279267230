# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.sparkfleet.vllm.plugins.modules import spark_status
from helpers import printed


def call(capsys: pytest.CaptureFixture[str], **given: Any) -> dict[str, Any]:
    with patch_module_args(given), pytest.raises(SystemExit):
        spark_status.main()
    return printed.result(capsys.readouterr().out)


def test_it_looks_in_check_mode_too_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = call(capsys, state_dir=str(tmp_path), _ansible_check_mode=True)
    assert found["changed"] is False and found["look"]["record"] is None
    assert found["look"]["memory"]["total"] > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("interval", [0, -1, 61])
def test_an_interval_out_of_bounds_is_refused(interval: float, capsys: pytest.CaptureFixture[str]) -> None:
    found = call(capsys, interval=interval)
    assert found["failed"] and f"seen {interval}" in found["msg"] and "status_interval" in found["msg"]
