# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.sparkfleet.vllm.plugins.module_utils._status import day
from ansible_collections.sparkfleet.vllm.plugins.modules import prometheus_day
from helpers import printed, status


def call(capsys: pytest.CaptureFixture[str], **given: Any) -> dict[str, Any]:
    with patch_module_args({"hosts": ["one"], **given}), pytest.raises(SystemExit):
        prometheus_day.main()
    return printed.result(capsys.readouterr().out)


def test_it_returns_the_day_of_the_hosts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def answer(*given: Any) -> dict[str, Any]:
        asked.append(given)
        return status.day(["one"])

    monkeypatch.setattr(day, "day", answer)
    found = call(capsys, address="127.0.0.1:1", _ansible_check_mode=True)
    assert found["changed"] is False and found["day"] == status.day(["one"])
    assert asked[0][:2] == ("127.0.0.1:1", ["one"])


def test_without_an_answer_it_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    found = call(capsys, address="127.0.0.1:1")
    assert found["failed"] and "http://127.0.0.1:1" in found["msg"] and "journalctl" in found["msg"]
