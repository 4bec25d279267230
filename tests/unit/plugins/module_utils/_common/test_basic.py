# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a module returns holds no secret, whichever Ansible it runs under."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from ansible.module_utils import basic
from ansible.module_utils.testing import patch_module_args
from ansible_collections.sparkfleet.vllm.plugins.module_utils._common.basic import AnsibleModule
from helpers import printed

KEY = "sk-nobody-\u200bmay-read-this"
"""With a mark that messages escape."""


@pytest.mark.parametrize(
    "end",
    [
        lambda module: module.exit_json(said=[f"with {KEY}"], key=KEY),
        lambda module: module.fail_json(f"refused {KEY}", stderr=f"{KEY}: no"),
    ],
    ids=["exit_json", "fail_json"],
)
def test_neither_end_of_a_module_tells_a_secret(
    end: Callable[[AnsibleModule], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what Ansible's own module is given: up to ansible-core 2.21 that would mask it as well."""
    given: list[object] = []

    def leave(module: basic.AnsibleModule, *arguments: object, **result: object) -> None:
        given.extend([arguments, result])
        raise SystemExit(0)

    for name in ("exit_json", "fail_json"):
        monkeypatch.setattr(basic.AnsibleModule, name, leave)
    monkeypatch.setattr(basic.AnsibleModule, "warn", lambda module, text: given.append(text))
    with patch_module_args({"key": KEY}), pytest.raises(SystemExit):
        module = AnsibleModule(argument_spec={"key": {"type": "str", "no_log": True}})
        module.warn(f"{KEY} is short")
        end(module)
    shown = json.dumps(given)
    assert "nobody" not in shown
    assert shown.count("********") == 4  # the warning, two of the end, and the argument
    assert given[0] == "******** is short"


def test_wrong_arguments_tell_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    with patch_module_args({"key": KEY, "number": KEY}), pytest.raises(SystemExit):
        AnsibleModule(argument_spec={"key": {"type": "str", "no_log": True}, "number": {"type": "int"}})
    result = printed.result(capsys.readouterr().out)
    assert result["failed"] and "number" in result["msg"]
    assert KEY not in json.dumps(result)
