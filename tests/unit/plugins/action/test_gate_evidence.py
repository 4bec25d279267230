# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is recorded of a gate, as the task of the role asks for it."""

from __future__ import annotations

from ansible_collections.sparkfleet.vllm.plugins.action import gate_evidence
from helpers import actions


def test_the_evidence_is_what_was_measured_and_on_what() -> None:
    gate = {"drafts": 236, "acceptance_rate": 0.69, "changed": False, "passed_at": 1.0}
    result = actions.run(gate_evidence, {}, gate=gate, host={"driver": "580"})
    assert result["evidence"] == {"drafts": 236, "acceptance_rate": 0.69, "host": {"driver": "580"}}
