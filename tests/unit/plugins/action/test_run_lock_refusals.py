# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role run_lock says when hosts are held by another run."""

from __future__ import annotations

from ansible_collections.sparkfleet.vllm.plugins.action import run_lock_refusals
from helpers import actions

HELD = {"refused": True, "held": {"run": "other"}, "msg": "expected no other run on this host"}


def test_hosts_of_one_run_share_a_text_and_one_that_was_lost_is_not_named() -> None:
    hosts: actions.Hosts = {
        "one": {"__lock": HELD},
        "two": {"__lock": HELD},
        "free": {"__lock": {"refused": False}},
        "unasked": {},
        "lost": {"__lock": HELD},
    }
    result = actions.run(run_lock_refusals, hosts, lost="lost", locks="__lock")
    assert result["refusals"] == ["one, two: expected no other run on this host"]


def test_where_nobody_is_held_off_there_is_no_refusal() -> None:
    result = actions.run(run_lock_refusals, {"free": {"__lock": {"refused": False}}}, locks="__lock")
    assert result["refusals"] == []
