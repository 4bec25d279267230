from __future__ import annotations

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host import unit
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host.request import ProbeError
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host.unit import Unit

SHOWN = {
    "ActiveState": "active",
    "MainPID": "7",
    "NRestarts": "2",
    "Result": "success",
    "UnitFileState": "enabled",
    "DropInPaths": "",
}


@pytest.fixture
def systemd(tmp_path, monkeypatch):
    """What systemctl says, to be changed; `asked` holds what it was asked."""

    class Systemd:
        def __init__(self):
            self.shown, self.asked = dict(SHOWN), []

        def answer(self, argv, timeout):
            self.asked.append(argv)
            if self.shown is None:
                raise ProbeError("systemctl is not there")
            return "".join(f"{name}={value}\n" for name, value in self.shown.items())

    faked = Systemd()
    monkeypatch.setattr(unit, "UNITS", tmp_path)
    monkeypatch.setattr(unit, "run_command", faked.answer)
    return faked


def test_a_unit_that_watches(systemd, tmp_path):
    (tmp_path / "v.service").write_text("[Unit]\n")
    systemd.shown["DropInPaths"] = "/etc/a.conf /etc/b.conf"
    seen = unit.look("v.service")
    assert seen == Unit("[Unit]\n", "enabled", ("/etc/a.conf", "/etc/b.conf"), "active", True, 2)
    assert systemd.asked[-1][-1] == "v.service"


@pytest.mark.parametrize(
    ("over", "watches", "gave_up"),
    [
        # That of a former release has done its work when it has started the container.
        ({"MainPID": "0"}, False, False),
        ({"ActiveState": "activating", "MainPID": "0", "Result": "exit-code"}, False, False),
        ({"ActiveState": "failed", "MainPID": "0", "Result": "exit-code"}, False, True),
        ({"ActiveState": "inactive", "MainPID": "0"}, False, False),
        ({"NRestarts": "[not set]"}, True, False),
    ],
)
def test_one_that_does_not(systemd, over, watches, gave_up):
    systemd.shown |= over
    seen = unit.look("v.service")
    assert (seen.watches, seen.gave_up) == (watches, gave_up)


def test_where_systemd_does_not_answer_nothing_is_known(systemd):
    systemd.shown = None
    assert unit.look("v.service") == Unit()


def test_a_unit_is_stopped_where_there_is_one(systemd, tmp_path):
    systemd.asked.clear()
    unit.stop("v.service", 90)
    assert systemd.asked == []
    (tmp_path / "v.service").write_text("")
    unit.stop("v.service", 90)
    assert systemd.asked == [["systemctl", "stop", "v.service"]]
