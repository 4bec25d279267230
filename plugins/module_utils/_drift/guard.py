# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether rules that keep ports would come back at boot. Pure."""

from __future__ import annotations

from .._host.guard import Guard
from .finding import Finding

SITE = "playbooks/site.yml"


def boot(kind: str, service: str, seen: Guard, wanted: Guard) -> list[Finding]:
    """:param service: the unit that brings them back"""
    wrong = [
        f"{path} {'holds something else' if path in seen.files else 'is missing'}"
        for path, text in wanted.files.items()
        if seen.files.get(path) != text
    ]
    if (seen.enabled, seen.active) != (wanted.enabled, wanted.active):
        wrong.append(f"{service} is {seen.enabled or 'not there'}{', ' + seen.active if seen.active else ''}")
    expected = f"{service} brings the rules back at boot"
    return (
        [Finding("host", kind, expected, "; ".join(wrong), f"{SITE} writes and enables it")] if wrong else []
    )
