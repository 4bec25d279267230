"""What a terminal is given of texts that others wrote, and that every module and every line goes through it."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.sparkfleet.vllm.plugins.module_utils._common import basic
from ansible_collections.sparkfleet.vllm.plugins.module_utils._common.terminal import one_line, printable
from helpers.recipe import ROOT


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07\x1b[2J", r"\x1b]0;title\x07\x1b[2J"),
        ("a\x9b2Jb", r"a\x9b2Jb"),
        ("\u202etxt.exe\u2066", r"\u202etxt.exe\u2066"),
        ("zero\u200bwidth\ufeff", r"zero\u200bwidth\ufeff"),
        ("a\rb\x7f\x00", r"a\rb\x7f\x00"),
        ("a\u2028b", r"a\u2028b"),
        ("lone \ud83d", r"lone \ud83d"),
        ("tag \U000e0041", r"tag \U000e0041"),
        ("Grüße, 世界 \U0001f600\n\tmore…", "Grüße, 世界 \U0001f600\n\tmore…"),
    ],
)
def test_what_a_terminal_would_act_on_is_written_out(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_no_control_and_no_mark_of_direction_is_left() -> None:
    every = "".join(map(chr, range(0x110000)))
    left = {
        sign
        for sign in printable(every)
        if unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp")
        or unicodedata.bidirectional(sign) in ("LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI")
    }
    assert left == {"\n", "\t"}


def test_a_cell_is_one_line() -> None:
    assert one_line("a\n  b\tc\x1b") == r"a b c\x1b"


def test_a_failure_and_a_warning_of_a_module_are_shown_and_not_done(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    warned: list[str] = []
    monkeypatch.setattr(basic.basic.AnsibleModule, "warn", lambda module, text: warned.append(text))
    with patch_module_args({}):
        module = basic.AnsibleModule(argument_spec={})
        module.warn("\x1b[2J, careful")
        with pytest.raises(SystemExit):
            module.fail_json("\u202eseen\x1b", changed=False)
    assert warned == [r"\x1b[2J, careful"]
    assert json.loads(capsys.readouterr().out)["msg"] == r"\u202eseen\x1b"


MODULES = sorted(
    path.name for path in (ROOT / "plugins/modules").glob("*.py") if "AnsibleModule(" in path.read_text()
)


@pytest.mark.parametrize("name", MODULES)
def test_every_module_fails_by_it(name: str) -> None:
    assert (
        "from ..module_utils._common.basic import AnsibleModule"
        in (ROOT / "plugins/modules" / name).read_text()
    )


SHOWS = sorted(
    path
    for path in (ROOT / "plugins").rglob("*.py")
    if re.search(r"Display\(\)\.(display|warning)\(", path.read_text())
)


@pytest.mark.parametrize("path", SHOWS, ids=lambda path: path.name)
def test_every_line_that_is_shown_goes_through_it(path: Path) -> None:
    for call in re.findall(r"Display\(\)\.(?:display|warning)\(\s*([^\n]*)", path.read_text()):
        assert call.startswith(("printable(", "one_line(")), f"{path.name}: {call}"
